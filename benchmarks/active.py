"""Width vectors chosen by `active` sampling against Sobol: how many are needed for the same error.

One campaign on this machine measures, in random order so that its moods favour none of them,
three seeds' first 80 Sobol and first 55 active vectors of MobileNetV1 (inputs of 128), and test
vectors that neither made: half uniform, half rounded up to multiples of 8 or 16, as users deploy
them. The aligned model is fitted to the first n of a seed, or to several seeds' vectors together.
Printed are its errors on each half of the test vectors and on both, and for each n of Sobol
the n at which the active curve is as low; its spread is over resampled seeds and test vectors (80 %).
The same for the energy of a simulated accelerator without any noise, six seeds.

python benchmarks/active.py --out DIR [--only local|simulated]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from joulemap.datasets import CostDataset, NetworkSpec
from joulemap.models import AlignedBilinearPredictor, SystolicArrayModel, Training
from joulemap.models.learning_curve import fit_rows
from joulemap.profiler import Protocol, networks, profile, sample
from joulemap.profiler.command_line.console import CampaignProgress

FloatArray = NDArray[np.float64]

SHORT = Protocol(max_visit_s=0.35, max_further_visits=1)
NUM_TEST = 40  # in each half
LOCAL_SEEDS, SIMULATED_SEEDS = 3, 6
# How many vectors of each seed are measured, and how many are fitted: beyond those of one seed,
# two or three seeds' together.
NUM_MEASURED = {"sobol": 80, "active": 55}
COUNTS = {
    "sobol": (20, 30, 40, 60, 80, 110, 160),
    "active": (10, 15, 20, 25, 30, 35, 40, 48, 55, 80, 110, 165),
}
NUM_SIMULATED = dict.fromkeys(NUM_MEASURED, 165)
NUM_RESAMPLED = 400
TARGET = "latency_s"
HALVES = ("uniform", "rounded", "both")


@dataclass(frozen=True)
class Curve:
    """Relative errors of a sampler's fits on the test vectors, shape (counts, seeds, tests)."""

    counts: tuple[int, ...]
    errors: FloatArray

    def means(self, seeds: NDArray[np.int64], tests: NDArray[np.int64]) -> FloatArray:
        """Return the mean error, a fraction, at each count, made to fall: luck does not count."""
        means = self.errors[:, seeds][:, :, tests].mean(axis=(1, 2))
        falling = IsotonicRegression(increasing=False).fit_transform(self.counts, means)
        return np.asarray(falling)


def test_vectors(spec: NetworkSpec) -> list[tuple[int, ...]]:
    """Return uniform vectors, then as many rounded up to multiples of 8 or 16."""
    rng = np.random.default_rng(2_000)
    low, high = np.array(spec.min_widths), np.array(spec.max_widths)
    draws = rng.integers(low, high, (2 * NUM_TEST, len(low)), endpoint=True)
    multiples = rng.choice([8, 16], (NUM_TEST, 1))
    rounded = -(-draws[NUM_TEST:] // multiples) * multiples
    draws[NUM_TEST:] = np.minimum(rounded, high // multiples * multiples)
    return [tuple(map(int, row)) for row in draws]


def training_vectors(
    spec: NetworkSpec, numbers: Mapping[str, int], seeds: int
) -> dict[str, list[list[tuple[int, ...]]]]:
    """Return for each sampler the vectors of each seed."""
    return {
        sampling: [sample(spec, number, sampling=sampling, seed=s) for s in range(seeds)]
        for sampling, number in numbers.items()
    }


def curve(
    vectors: Sequence[Sequence[tuple[int, ...]]],
    counts: Sequence[int],
    cost: Callable[[FloatArray], FloatArray],
    tests: FloatArray,
    spec: NetworkSpec,
) -> Curve:
    """Return the errors of fits to the first vectors of each seed, and of the seeds after it."""
    model = AlignedBilinearPredictor(spec)
    model.bind(spec.width_names, unit="s", target=TARGET)
    truth = cost(tests)
    errors = np.empty((len(counts), len(vectors), len(tests)))
    for seed in range(len(vectors)):
        ordered = np.array([*vectors[seed:], *vectors[:seed]], dtype=np.float64)
        ordered = ordered.reshape(-1, tests.shape[1])
        for place, count in enumerate(counts):
            X = ordered[:count]
            fitted = fit_rows(model, Training(X, cost(X), np.ones(count)))
            errors[place, seed] = np.abs(fitted.predict_arrays(tests) / truth - 1)
    return Curve(tuple(counts), errors)


def needed(counts: Sequence[int], errors: FloatArray, wanted: float) -> float:
    """Return at how many vectors a falling curve reaches an error, within its ends."""
    # np.interp wants rising abscissae.
    return float(np.exp(np.interp(-np.log(wanted), -np.log(errors), np.log(counts))))


def needed_by_active(
    curves: Mapping[str, Curve],
    seeds: Mapping[str, NDArray[np.int64]],
    tests: NDArray[np.int64],
) -> FloatArray:
    """Return for each count of Sobol how many active vectors give the same error."""
    means = {name: c.means(seeds[name], tests) for name, c in curves.items()}
    return np.array(
        [needed(curves["active"].counts, means["active"], error) for error in means["sobol"]]
    )


def report(curves: Mapping[str, Curve]) -> None:
    """Print errors and ratios on both halves of the test vectors and on all of them."""
    rng = np.random.default_rng(0)
    halves = (np.arange(NUM_TEST), np.arange(NUM_TEST, 2 * NUM_TEST), np.arange(2 * NUM_TEST))
    every = {name: np.arange(c.errors.shape[1]) for name, c in curves.items()}
    counts = np.array(curves["sobol"].counts)
    ends = curves["active"].counts[0], curves["active"].counts[-1]
    for half, tests in zip(HALVES, halves, strict=True):
        print(f"\n  test vectors: {half}")
        for name, c in curves.items():
            seeds = c.errors[:, :, tests].mean(axis=2)
            for count, errors in zip(c.counts, seeds, strict=True):
                print(
                    f"    {name:6} {count:4} vectors {100 * errors.mean():6.2f} % "
                    f"(seeds {100 * errors.min():.2f} to {100 * errors.max():.2f})"
                )
        found = needed_by_active(curves, every, tests)
        drawn = [
            needed_by_active(
                curves,
                {name: rng.choice(seeds, len(seeds)) for name, seeds in every.items()},
                rng.choice(tests, len(tests)),
            )
            for _ in range(NUM_RESAMPLED)
        ]
        low, high = np.quantile(counts / np.array(drawn), [0.1, 0.9], axis=0)
        for place, count in enumerate(counts):
            bound = {ends[0]: "at least ", ends[1]: "at most "}.get(round(found[place], 6), "")
            print(
                f"    Sobol {count:3}: as low with {found[place]:.0f} active ones, {bound}"
                f"{count / found[place]:.1f}x fewer ({low[place]:.1f} to {high[place]:.1f})"
            )
        print(f"    median over these: {np.median(counts / found):.1f}x")


def measured_curves(spec: NetworkSpec, out: Path) -> dict[str, Curve]:
    """Return both curves on this machine, measured now as far as the folder does not hold it."""
    vectors = training_vectors(spec, NUM_MEASURED, LOCAL_SEEDS)
    tests = test_vectors(spec)
    everything = [v for seeds in vectors.values() for chosen in seeds for v in chosen] + tests
    with CampaignProgress() as progress:
        ds: CostDataset = profile(
            "local:", spec, widths=everything, protocol=SHORT, out=out, observer=progress
        )
    floor = ds.noise_floor(TARGET)
    print(
        f"\n{spec.name} on this machine, {len(ds)} variants; noise floor "
        f"{floor.describe() if floor else 'unknown'}"
    )
    latency = {tuple(row): y for row, y in zip(ds.widths.tolist(), ds.latency_s, strict=True)}

    def cost(X: FloatArray) -> FloatArray:
        return np.array([latency[tuple(row)] for row in X])

    return {
        name: curve(seeds, COUNTS[name], cost, np.array(tests, dtype=np.float64), spec)
        for name, seeds in vectors.items()
    }


def simulated_curves(spec: NetworkSpec) -> dict[str, Curve]:
    """Return both curves on the simulated accelerator."""
    model = SystolicArrayModel(spec)
    tests = np.array(test_vectors(spec), dtype=np.float64)
    print(f"\n{spec.name} on sim:eyeriss, without noise")
    return {
        name: curve(seeds, COUNTS[name], model.predict, tests, spec)
        for name, seeds in training_vectors(spec, NUM_SIMULATED, SIMULATED_SEEDS).items()
    }


def main() -> None:
    """Measure what is missing and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the campaign")
    parser.add_argument("--only", choices=["local", "simulated"])
    arguments = parser.parse_args()
    spec = networks.get("mobilenet_v1", 128)
    if arguments.only != "simulated":
        report(measured_curves(spec, arguments.out))
    if arguments.only != "local":
        report(simulated_curves(spec))


if __name__ == "__main__":
    main()
