"""Random SSH configurations: joulemap must read in each what OpenSSH's own client says of it."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from . import Outcome, Trial

NUM_CONFIGURATIONS = 150
ALIASES = ("pi", "PI", "pi.lan", "10.0.0.7")


def run(number: int) -> Outcome:
    """Compare as many configurations as a round has with `ssh -G`, those that it refuses too."""
    # Last, since folders beside it are called as others' packages are.
    sys.path.append(str(Path(__file__).parents[2]))
    from tests.device_agents.transports import ssh_config_oracle as oracle
    from tests.device_agents.transports.test_ssh_config import CONFIGURATIONS

    failures: list[str] = []
    tries = taken = 0
    with tempfile.TemporaryDirectory(prefix="joulemap-trust-") as folder:
        file, other = Path(folder, "config"), Path(folder, "included")

        @settings(
            max_examples=NUM_CONFIGURATIONS,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @seed(number)
        @given(CONFIGURATIONS, CONFIGURATIONS, st.sampled_from(ALIASES))
        def compare(text: str, included: str, alias: str) -> None:
            nonlocal tries, taken
            tries += 1
            other.write_text(included.replace("Include INCLUDED", "") + "\n", newline="")
            file.write_text(text.replace("INCLUDED", str(other)) + "\n", newline="")
            taken += not isinstance(oracle.asked(file, alias), str)
            with oracle.own_configuration(file):
                differs = oracle.difference(file, alias)
            if differs is not None:
                failures.append(f"seed {number}: {alias}: {text!r:.300}: {differs:.300}")

        compare()
    return Outcome(tries, tuple(failures), (("share that OpenSSH takes", taken / max(tries, 1)),))


TRIALS = (
    Trial(
        name="ssh-configurations",
        promise="a host's SSH options are what OpenSSH reads in the configuration",
        rounds=60,
        run=run,
    ),
)
