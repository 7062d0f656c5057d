"""Widths allocated under a budget: do they meet it, how much do they keep, how long does it take.

On simulated hardware, whose true cost is known: predictors are fitted to noisy samples, random
importances are kept under budgets of 40 to 90 % of the dense cost, and the true cost is compared
with the limit, without and with `coverage=0.9`. Beside what the allocation keeps stand greedy
removal by importance per cost saved, equal shares of all widths, and the bound.

On this machine: a campaign of MobileNetV1 at 128 x 128 is measured (or continued) and fitted,
channels are allocated under latency budgets, and the allocated variants are measured beside the
dense network in a campaign of their own. Measure on an otherwise idle machine.

python benchmarks/budget.py [--only simulated|measured] [--out DIR]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from joulemap.datasets import CostDataset, NetworkSpec
from joulemap.datasets.metrics import NoiseFloor
from joulemap.models import (
    AlignedBilinearPredictor,
    BilinearPredictor,
    Budget,
    GaussianProcessPredictor,
    Predictor,
    SystolicArrayModel,
    fit,
)
from joulemap.models.budgets.budget import Allocation
from joulemap.models.testing import ArrayDataset
from joulemap.profiler import Protocol, networks, profile, sample
from joulemap.profiler.command_line.console import CampaignProgress

NETWORK, RESOLUTION = "mobilenet_v1", 128
NUM_TRAINING = 150
NOISE = 0.02
STEP = 8
SHARES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SEEDS = range(3)
# A Gaussian process is slow to search: fewer budgets and draws.
FEW_SHARES, FEW_SEEDS = (0.5, 0.8), range(2)
COVERAGE = 0.9

HARDWARE: Mapping[str, Literal["energy", "latency"]] = {"eyeriss": "energy", "tpu": "latency"}
MODELS: Mapping[str, Callable[[], Predictor]] = {
    "bilinear": partial(BilinearPredictor, loss="relative"),
    "aligned": AlignedBilinearPredictor,
    "gp": GaussianProcessPredictor,
}

MEASURED_SHARES = (0.45, 0.6, 0.75, 0.9)
MEASURED_SEEDS = range(3)
NUM_MEASURED = 120
SHORT = Protocol(max_visit_s=0.35, max_further_visits=1)
TARGET = "latency_s"


@dataclass(frozen=True)
class Outcome:
    """One allocation beside the truth, costs relative to the limit.

    Attributes:
        true: True cost.
        of_mean: How far the stated interval of the mean reaches above the limit, 0 where it does
            not; NaN where none is stated.
        of_measurement: The same of the interval of one measurement.
        kept: Importance kept, relative to the bound.
        greedy: The same of greedy removal.
        equal: The same of equal shares.
        gap: What the allocation can be off at most, a fraction.
        is_optimal: Whether it is proven to be the best.
        seconds: Time of the allocation.
    """

    true: float
    of_mean: float
    of_measurement: float
    kept: float
    greedy: float
    equal: float
    gap: float
    is_optimal: bool
    seconds: float


def draw_importance(spec: NetworkSpec, seed: int) -> dict[str, np.ndarray]:
    """Return random importances: exponential, and layers that matter more or less."""
    rng = np.random.default_rng(1000 + seed)
    return {w.name: rng.exponential(rng.lognormal(0, 0.7), w.max) for w in spec.widths}


def kept_by(importance: Mapping[str, np.ndarray], widths: Sequence[float]) -> float:
    """Return the importance that a width vector keeps."""
    pairs = zip(importance.values(), widths, strict=True)
    return sum(float(np.sort(values)[::-1][: int(width)].sum()) for values, width in pairs)


def greedy(budget: Budget, importance: Mapping[str, np.ndarray]) -> float:
    """Return what is kept when steps of least importance per cost saved are removed in turn."""
    sums = [np.concatenate([[0], np.cumsum(np.sort(v)[::-1])]) for v in importance.values()]
    widths = budget.high.copy()
    now = excess(budget, widths[None])[0]
    while now > 0:
        movable = np.flatnonzero(widths - STEP >= np.maximum(budget.low, STEP))
        trials = np.repeat(widths[None], len(movable), axis=0)
        trials[np.arange(len(movable)), movable] -= STEP
        after = excess(budget, trials)
        lost = [
            float(sums[at][int(widths[at])] - sums[at][int(widths[at]) - STEP]) for at in movable
        ]
        best = int(np.argmin(np.array(lost) / np.maximum(now - after, 1e-12)))
        widths, now = trials[best], after[best]
    return kept_by(importance, widths.tolist())


def equal_shares(budget: Budget, importance: Mapping[str, np.ndarray]) -> float:
    """Return what is kept when all widths shrink by the same factor."""
    shares = np.linspace(0, 1, 257)[1:, None]
    rows = np.maximum(STEP, np.floor(shares * budget.high / STEP) * STEP)
    fits = np.flatnonzero(excess(budget, rows) <= 0)
    return max((kept_by(importance, rows[at].tolist()) for at in fits), default=np.nan)


def excess(budget: Budget, rows: np.ndarray) -> np.ndarray:
    """Return the largest excess of the exact costs over their limits, shape (n,)."""
    values = torch.from_numpy(rows)
    with torch.no_grad():
        costs = [c.value(values, budget.coverage) / c.limit - 1 for c in budget.constraints]
    return torch.stack(costs).amax(0).numpy()


def outcome(
    predictor: Predictor, truth: Predictor, share: float, seed: int, coverage: float | None
) -> Outcome:
    """Return one allocation beside the truth, under a share of the predicted dense cost."""
    spec = truth.spec
    assert spec is not None
    limit = share * float(predictor.predict([spec.max_widths])[0])
    budget = Budget([(predictor, limit)], coverage=coverage)
    importance = draw_importance(spec, seed)
    began = time.perf_counter()
    result = budget.allocate(importance, multiples=dict.fromkeys(spec.width_names, STEP))
    seconds = time.perf_counter() - began
    reach = {"mean": np.nan, "measurement": np.nan}
    if predictor.num_samples_:
        for of in ("mean", "measurement"):
            high = predictor.predict_interval([result.widths], COVERAGE, of=of)[1]
            reach[of] = max(0.0, float(high[0]) / limit - 1)
    return Outcome(
        true=float(truth.predict([result.widths])[0]) / limit,
        of_mean=reach["mean"],
        of_measurement=reach["measurement"],
        kept=result.importance / result.bound,
        greedy=greedy(budget, importance) / result.bound,
        equal=equal_shares(budget, importance) / result.bound,
        gap=result.gap,
        is_optimal=result.is_optimal,
        seconds=seconds,
    )


def training_set(truth: Predictor, unit: str, seed: int) -> ArrayDataset:
    """Return noisy samples of the truth."""
    spec = truth.spec
    assert spec is not None
    X = np.array(sample(spec, NUM_TRAINING, sampling="aligned", seed=seed), dtype=np.float64)
    noise = np.random.default_rng(seed).normal(0, NOISE, len(X))
    # Of normal noise, the mean absolute difference of two visits over sqrt(2) is 0.8 of its scale.
    floor = 0.8 * NOISE
    return ArrayDataset(
        spec,
        X,
        {f"cost_{unit}": truth.predict(X) * np.exp(noise)},
        noise_floor=NoiseFloor(floor, 0.8 * floor, 1.2 * floor, 40),
    )


def report_simulated(names: Sequence[str]) -> None:
    """Print the figures on simulated hardware."""
    spec = networks.get(NETWORK, RESOLUTION)
    print(
        f"{NETWORK} at {RESOLUTION}, {NUM_TRAINING} samples with {NOISE:.0%} noise, budgets of "
        f"{SHARES[0]:.0%} to {SHARES[-1]:.0%}, widths in multiples of {STEP}\n"
        f"{'hardware':9}{'predictor':10}{'coverage':>8}{'runs':>5}{'met':>5}{'in mean':>8}"
        f"{'in meas':>8}{'worst':>10}{'mean/meas':>14}{'kept/bound':>11}{'greedy':>8}{'equal':>7}"
        f"{'proven':>7}{'gap <=':>9}{'seconds':>8}"
    )
    for hardware, quantity in HARDWARE.items():
        truth = SystolicArrayModel(spec, hardware, quantity=quantity)
        truth.ready()
        for name in names if names else [*MODELS, "truth"]:
            is_few = name == "gp"
            seeds = FEW_SEEDS if is_few else SEEDS
            shares = FEW_SHARES if is_few else SHARES
            fitted = {seed: _fitted(name, truth, seed) for seed in seeds}
            for coverage in (None, COVERAGE) if name != "truth" else (None,):
                outcomes = [
                    outcome(predictor, truth, share, seed, coverage)
                    for seed, predictor in fitted.items()
                    for share in shares
                ]
                print(_row(hardware, name, coverage, outcomes), flush=True)


def _fitted(name: str, truth: Predictor, seed: int) -> Predictor:
    if name == "truth":
        return truth
    unit = "s" if truth.unit_ == "s" else "j"
    return MODELS[name]().fit_dataset(training_set(truth, unit, seed), f"cost_{unit}")


def _row(hardware: str, name: str, coverage: float | None, outcomes: Sequence[Outcome]) -> str:
    """Return one line of the table."""
    columns = {
        field: np.array([getattr(o, field) for o in outcomes])
        for field in (
            "true",
            "of_mean",
            "of_measurement",
            "kept",
            "greedy",
            "equal",
            "gap",
            "seconds",
        )
    }
    over = columns["true"] - 1
    reach = [np.nan_to_num(columns[field]) + 1e-9 for field in ("of_mean", "of_measurement")]
    middle = {field: float(np.median(values)) for field, values in columns.items()}
    widths = (
        "-"
        if np.isnan(middle["of_mean"])
        else (f"{100 * middle['of_mean']:.1f}/{100 * middle['of_measurement']:.1f} %")
    )
    return (
        f"{hardware:9}{name:10}{'-' if coverage is None else coverage:>8}{len(over):5}"
        f"{int((over <= 1e-9).sum()):5}{int((over <= reach[0]).sum()):8}"
        f"{int((over <= reach[1]).sum()):8}{100 * over.max():+8.2f} %{widths:>14}"
        f"{middle['kept']:11.5f}{middle['greedy']:8.4f}{middle['equal']:7.3f}"
        f"{sum(o.is_optimal for o in outcomes):7}{100 * columns['gap'].max():7.3f} %"
        f"{middle['seconds']:8.2f}"
    )


# -- measured here ---------------------------------------------------------------------------------


def measure(out: Path, **what: object) -> CostDataset:
    """Return a campaign on this machine, measured now as far as the folder does not hold it."""
    with CampaignProgress() as progress:
        return profile(
            "local:",
            NETWORK,
            resolution=RESOLUTION,
            protocol=SHORT,
            out=out,
            observer=progress,
            **what,  # type: ignore[arg-type]
        )


def report_measured(out: Path) -> None:
    """Print measured latencies of allocated widths beside limits and intervals."""
    ds = measure(out / NETWORK, samples=NUM_MEASURED, sampling="aligned")
    predictor = fit(ds, "aligned", TARGET)
    spec = ds.spec
    dense = float(predictor.predict([spec.max_widths])[0])
    allocations: list[tuple[float, float | None, int, Allocation]] = []
    for share in MEASURED_SHARES:
        for coverage in (None, COVERAGE):
            budget = Budget([(predictor, share * dense)], coverage=coverage)
            for seed in MEASURED_SEEDS:
                result = budget.allocate(draw_importance(spec, seed), multiples="advised")
                allocations.append((share, coverage, seed, result))
    vectors = [tuple(spec.max_widths), *(result.widths for *_, result in allocations)]
    measured = measure(out / f"{NETWORK}-allocated", widths=vectors)
    table = measured.to_pandas()
    rows = {tuple(map(int, w)): at for at, w in enumerate(measured.widths.tolist())}
    latency = measured.latency_s
    base = float(latency[rows[vectors[0]]])
    print(
        f"\n{NETWORK} at {RESOLUTION} on this machine, aligned model on {len(ds)} variants; dense "
        f"predicted {1e3 * dense:.2f} ms, measured {1e3 * base:.2f} ms in the second campaign\n"
        f"{'share':>6}{'coverage':>9}{'limit':>9}{'predicted':>10}{'upper':>9}{'measured':>10}"
        f"{'95 % interval':>16}{'measured/limit':>15}{'same, by dense':>15}{'gap':>10}"
    )
    ratios: dict[float | None, list[tuple[float, float, float]]] = {None: [], COVERAGE: []}
    for share, coverage, _, result in allocations:
        at = rows[result.widths]
        limit, cost = result.check.limits[0], result.check.costs[0]
        upper = float(predictor.predict_interval([result.widths], COVERAGE)[1][0])
        low, high = (float(table[f"latency_ci_{end}_s"].iloc[at]) for end in ("low", "high"))
        ratio = float(latency[at]) / limit
        by_dense = ratio * dense / base
        ratios[coverage].append((ratio, by_dense, (upper - cost) / limit))
        print(
            f"{share:6.0%}{'-' if coverage is None else coverage:>9}{1e3 * limit:9.3f}"
            f"{1e3 * cost:10.3f}{1e3 * upper:9.3f}{1e3 * float(latency[at]):10.3f}"
            f"{1e3 * low:8.3f}-{1e3 * high:.3f}{ratio:14.3f}{by_dense:15.3f}{100 * result.gap:8.3f} %"
        )
    for coverage, values in ratios.items():
        name = "no coverage" if coverage is None else f"coverage {coverage}"
        for column, what in ((0, "as measured"), (1, "relative to the dense network")):
            over = np.array([value[column] - 1 for value in values])
            reach = np.array([value[2] for value in values])
            print(
                f"{name}, {what}: {int((over <= 0).sum())} of {len(over)} within the limit, "
                f"{int((over <= reach).sum())} within the interval of a measurement above it "
                f"(median {100 * np.median(reach):.1f} %), worst {100 * over.max():+.1f} %"
            )


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=["simulated", "measured"])
    parser.add_argument("--models", nargs="*", default=[], choices=[*MODELS, "truth"])
    parser.add_argument("--out", type=Path, default=Path("runs/budget"), help="folder of campaigns")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.only in (None, "simulated"):
        report_simulated(arguments.models)
    if arguments.only in (None, "measured"):
        report_measured(arguments.out)


if __name__ == "__main__":
    main()
