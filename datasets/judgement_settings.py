"""What a campaign's visits are judged by: every constant of the statistics, as one frozen value.

A journal holds it beside the protocol, so that its dataset is estimated by the same settings
wherever and whenever that is done. Fineness of computation (grids, draws, seeds) is no judgement
and stays with the code that computes.

Where a setting says `logarithm`, a difference of natural logarithms is meant: 0.08 is 8 %, roughly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from joulemap import InputError

LEAST = 1e-6
MOST = 1e6
# What would be slow, or no share, beyond this.
_MOST: Mapping[str, float] = MappingProxyType(
    {"baseline_share": 0.99, "fit_rounds": 100, "max_divisions": 1000}
)


@dataclass(frozen=True)
class JudgementSettings:
    """What a campaign's visits are judged by; the defaults are those of all published figures.

    In this order: states and drift, read off the reference (`drift`); rejection, noise and
    correction (`estimation`); warm-up (`warm_up_excess`); energies (`energy`). A value without a
    source is a choice that the coverage of intervals on simulated devices was tested with
    (`benchmarks/protocol.py`).

    Args:
        min_state_gap: Levels of the reference closer than this (logarithm) are drift, not states,
        min_state_gap_sd: ... and closer than so many standard deviations within a state.
        max_divisions: How often the levels are divided; each wild visit costs one division.
        min_state_visits: Fewer visits than this are a disturbance, not a state,
        min_state_share: ... and fewer than this share of all.
        max_change: A reference that changes by more than this (logarithm) from before a visit to
            after it spoils the visit,
        max_change_sd: ... or by more than so many times what it usually changes, where that is more.
        min_offset_visits: From so many visits on it is known what both ends usually differ by.
        min_drift_visits: From so many visits on a drift is looked for.
        min_drift_gain: Log-likelihood that a drift must gain over none; 4 is a likelihood ratio of
            55.
        spike_sd: A lone reading is wild beyond so many standard deviations from its neighbours.

        state_elasticity: Prior mean of how far variants follow a state of the reference (1: fully),
        state_elasticity_sd: ... and its standard deviation.
        drift_elasticity: Likewise of a drift,
        drift_elasticity_sd: ... and its standard deviation.
        elasticity_sd: Prior standard deviation of how much variants differ in following a state,
        steady_elasticity_sd: ... on a steady machine, where only heat and the like change its speed.
        elasticity_variants: How many variants this prior counts as.
        steady_noise_sd: A machine of one state is steady where visits repeat to this (relative
            standard deviation).
        outlier_sd: A visit is an outlier beyond so many standard deviations from its variant's
            others,
        outlier_change: ... and beyond this difference (logarithm).
        max_block_steal_share: A block with more than this share of stolen time does not count while
            three others remain.
        max_steal_share: A visit with more than this share of stolen time is rejected.
        max_suspended_s: A visit during which the device was suspended for longer, in seconds, is
            rejected.
        first_noise_sd: Relative standard deviation of a visit before anything was seen.
        min_noise_sd: It is never believed to be less than this.
        state_noise_freedom: Degrees of freedom of the common noise that a state's own is moderated
            by.
        variant_noise_freedom: Likewise of a variant's, as in limma (Smyth 2004), while fewer than
            five variants tell it.
        tamed_sd: A visit says no more than this many standard deviations about the machine's speed.
        fit_rounds: How often elasticities and noise are estimated in turn.
        baseline_share: Latencies are stated for the fastest speed that the machine held for this
            share of the time,
        baseline_share_error: ... which the visits' share may differ from by so much (relative)
            with lasting states, which a campaign may see more or less of,
        steady_share_error: ... and on a steady machine.
        min_drawn_visits: From so many visits on, what a median costs is drawn from them.

        min_warm_up_visits: From so many visits on it is learned how they warm up.
        min_warm_up_excess: A warm-up by which visits are no more than this slower (logarithm) is
            none,
        min_warm_up_share: ... for all but this share of them.
        min_warm_up_gain: What it must explain of the absolute deviations around constant levels.
        max_warm_up_deviation: A run that is further off (logarithm) is disturbed, however far.

        energy_freedom: How many visits the campaign's common spread of energies counts as.
        energy_sd: Prior relative spread of energies whose meter states no error,
        metered_energy_sd: ... and of those whose meter does,
        metered_energy_pairs: ... which counts as so many pairs of visits.

    Raises:
        InputError: A value is no number, or out of range.

    Example:
        >>> JudgementSettings(max_change=0.2).differing()
        {'max_change': 0.2}
    """

    min_state_gap: float = 0.12
    min_state_gap_sd: float = 5.0
    max_divisions: int = 12
    min_state_visits: int = 3
    min_state_share: float = 0.02
    max_change: float = 0.08
    max_change_sd: float = 5.0
    min_offset_visits: int = 8
    min_drift_visits: int = 10
    min_drift_gain: float = 4.0
    spike_sd: float = 4.0

    state_elasticity: float = 1.0
    state_elasticity_sd: float = 0.15
    drift_elasticity: float = 1.0
    drift_elasticity_sd: float = 0.5
    elasticity_sd: float = 0.05
    steady_elasticity_sd: float = 0.03
    elasticity_variants: int = 8
    steady_noise_sd: float = 0.05
    outlier_sd: float = 5.0
    outlier_change: float = 0.10
    max_block_steal_share: float = 0.05
    max_steal_share: float = 0.3
    max_suspended_s: float = 0.01
    first_noise_sd: float = 0.05
    min_noise_sd: float = 1e-3
    state_noise_freedom: float = 4.0
    variant_noise_freedom: float = 4.0
    tamed_sd: float = 3.0
    fit_rounds: int = 3
    baseline_share: float = 0.05
    baseline_share_error: float = 0.6
    steady_share_error: float = 0.2
    min_drawn_visits: int = 60

    min_warm_up_visits: int = 10
    min_warm_up_excess: float = 0.01
    min_warm_up_share: float = 0.1
    min_warm_up_gain: float = 0.1
    max_warm_up_deviation: float = 0.5

    energy_freedom: float = 4.0
    energy_sd: float = 0.05
    metered_energy_sd: float = 0.01
    metered_energy_pairs: float = 2.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            is_whole = item.type == "int"
            kinds = int if is_whole else (int, float)
            least, most = (1 if is_whole else LEAST), _MOST.get(item.name, MOST)
            is_number = isinstance(value, kinds) and not isinstance(value, bool)
            if not is_number or not least <= value <= most:
                raise InputError(
                    f"judgement {item.name} is {str(value)[:60]}; it must be a "
                    f"{'whole ' if is_whole else ''}number from {least:g} to {most:g}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return every setting by name, for JSON."""
        return asdict(self)

    def differing(self) -> dict[str, float]:
        """Return the settings that are not the defaults, by name."""
        return {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if getattr(self, item.name) != item.default
        }

    @classmethod
    def from_dict(cls, content: object) -> JudgementSettings:
        """Return the settings that `to_dict` wrote, or some of them; the others are the defaults.

        Args:
            content: A mapping of names to numbers.

        Raises:
            InputError: It is no mapping, has an unknown name, or a value out of range.
        """
        if not isinstance(content, Mapping):
            raise InputError("its judgement settings are no names with numbers")
        known = {item.name for item in fields(cls)}
        if unknown := [str(name) for name in content if name not in known]:
            raise InputError(
                f"there is no judgement setting '{unknown[0][:60]}' in this joulemap; a newer one "
                "may know it"
            )
        return cls(**content)


# What visits are judged by where nothing else is said.
DEFAULT_JUDGEMENT = JudgementSettings()
# What journals were judged by that do not say it (record versions 1 to 3, until 2026-11). Should a
# default change, its former value is to be given here.
UNRECORDED_JUDGEMENT = JudgementSettings()
