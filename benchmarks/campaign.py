"""How much of a campaign is spent measuring.

Prints (first warm-up call to last timed call, summed over visits) / campaign wall time, for
MobileNetV1 at 224x224, one thread, at most 1.5 s per visit. The wall time runs from before the
device is opened to after the dataset is written; the network's template is exported before, as it
is once per network and not per campaign.

    python benchmarks/campaign.py
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from joulemap.datasets.journal import read_journal
from joulemap.profiler import Protocol, networks, profile
from joulemap.profiler.templates.export import cached_template


def main() -> None:
    """Run one campaign and print its shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--network", default="mobilenet_v1")
    parser.add_argument("--variants", type=int, default=20)
    parser.add_argument("--visit-s", type=float, default=1.5)
    arguments = parser.parse_args()
    cached_template(networks.get(arguments.network))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        began = time.perf_counter()
        dataset = profile(
            "local:",
            arguments.network,
            samples=arguments.variants,
            out=out,
            protocol=Protocol(max_visit_s=arguments.visit_s, max_further_visits=0),
        )
        wall = time.perf_counter() - began
        visits = read_journal(out / "journal.jsonl").visits
    timings = [visit.timing for visit in visits if visit.timing is not None]
    measuring = sum(timing.measuring_s for timing in timings)
    reference = sum(t.reference_before.wall_s + t.reference_after.wall_s for t in timings)
    print(f"{arguments.network}: {len(timings)} visits of {len(dataset)} variants in {wall:.1f} s")
    print(f"longest visit                  {max(t.measuring_s for t in timings):8.2f} s")
    print(f"measuring                      {measuring / wall:8.1%} of the wall time")
    print(f"  reference before and after   {reference / wall:8.1%}")
    print(f"  loading the session          {sum(t.load_s for t in timings) / wall:8.1%}")
    print(f"  materialising                {sum(t.materialise_s for t in timings) / wall:8.1%}")


if __name__ == "__main__":
    main()
