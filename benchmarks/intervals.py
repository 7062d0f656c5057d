"""How often intervals cover: nominal 90 %, fits on 100 rows, 400 other rows, 20 samples.

For each task and predictor: coverage (mean over samples, the worst sample, and each third of the
test rows by predicted cost), mean relative width, and the mean relative interval score (Winkler:
width plus 2 / 0.1 times what the interval misses by), beside the score of the plain interval with
one relative half width for all rows. Tasks with `sim` are a simulated accelerator's latency with
noise: 3 % everywhere; 1 to 10 % by the first layer's width; long ones, 3 % of them by half.

Then what happens outside: predictors are fitted to widths in the middle 40 % of their bounds, and
coverage is given by the distance from there in ranges, without and with the widening.

python benchmarks/intervals.py [--tasks NAME ...] [--models NAME ...] [--rows 100] [--jobs 2]

About 15 minutes on two cores; `--models flops bilinear` takes one. Predictors come from joulemap's
table, except those that need more than rows.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from sklearn.utils.parallel import Parallel, delayed

from joulemap import InputError
from joulemap.datasets import NetworkSpec, public
from joulemap.models import SystolicArrayModel, registry
from joulemap.models.base.extrapolation import GROWTH_OUTSIDE, widening
from joulemap.models.base.intervals import FloatArray, HeldOut
from joulemap.models.base.predictor import Predictor
from joulemap.models.testing import draw_widths
from joulemap.profiler import networks

COVERAGE = 0.9
NUM_TEST = 400
# These need sources, other networks, or are what simulated costs come from; `params` is as `flops`.
NEED_MORE = ("auto", "layerwise", "params", "systolic", "transfer")
DISTANCES = (0.0, 0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Rows:
    """Measured rows: the network where there is one, widths or features (n, k), and costs (n,)."""

    spec: NetworkSpec | None
    X: FloatArray
    y: FloatArray


# Gives at least that many rows, from a seed where they are drawn.
Task: TypeAlias = Callable[[int, int], Rows]


@dataclass(frozen=True)
class Sample:
    """What the intervals of one fit did on the test rows.

    Attributes:
        coverage: Share of rows inside.
        thirds: The same of the rows with small, middle and large predictions.
        width: Mean width over the measured cost.
        score: Mean interval score over the measured cost.
        plain_score: The same of one relative half width for all rows.
    """

    coverage: float
    thirds: tuple[float, float, float]
    width: float
    score: float
    plain_score: float


# -- tasks ---------------------------------------------------------------------------------------


def simulated(name: str, noise: Callable[[NetworkSpec, FloatArray, int], FloatArray]) -> Task:
    """Return the task of a network's simulated latency with that relative noise."""

    def draw(count: int, seed: int) -> Rows:
        spec = networks.get(name)
        X = draw_widths(spec, count, seed)
        latency_s = SystolicArrayModel(spec, hardware="eyeriss", quantity="latency").predict(X)
        return Rows(spec, X, latency_s * (1 + noise(spec, X, seed + 1000)))

    return draw


def even(_: NetworkSpec, X: FloatArray, seed: int) -> FloatArray:
    """Return normal noise of 3 %."""
    return 0.03 * np.random.default_rng(seed).standard_normal(len(X))


def uneven(spec: NetworkSpec, X: FloatArray, seed: int) -> FloatArray:
    """Return normal noise of 10 % at the smallest first width to 1 % at the largest."""
    share = X[:, 0] / spec.max_widths[0]
    noise: FloatArray = np.random.default_rng(seed).standard_normal(len(X))
    return (0.1 - 0.09 * share) * noise


def skewed(_: NetworkSpec, X: FloatArray, seed: int) -> FloatArray:
    """Return noise that only makes longer: 4 % on average, and half as much again in 3 of 100."""
    rng = np.random.default_rng(seed)
    return rng.exponential(0.04, len(X)) + 0.5 * (rng.random(len(X)) < 0.03)


def netadapt(_count: int, _seed: int) -> Rows:
    """Return latencies of a convolution of AlexNet on a phone by its channels."""
    X, y, _ = public.load("netadapt")["alexnet.features.10"].xyw("latency_s")
    return Rows(None, X.astype(np.float64), y)


def mlperf(_count: int, _seed: int) -> Rows:
    """Return energies of 38 networks on all boards and runtimes, which are columns of 0 and 1."""
    tables = public.load("mlperf")
    parts = [table.xyw("energy_gross_j") for table in tables.values()]
    boards = np.repeat(np.eye(len(parts)), [len(y) for _, y, _ in parts], axis=0)
    X = np.concatenate([X for X, _, _ in parts]).astype(np.float64)
    return Rows(None, np.column_stack([X, boards]), np.concatenate([y for _, y, _ in parts]))


def hat(_count: int, _seed: int) -> Rows:
    """Return latencies of transformers on a Raspberry Pi by their dimensions."""
    X, y, _ = public.load("hat")["transformers"].xyw("latency_s")
    return Rows(None, X.astype(np.float64), y)


TASKS: dict[str, Task] = {
    "sim:lenet5": simulated("lenet5", even),
    "sim:lenet5 uneven": simulated("lenet5", uneven),
    "sim:lenet5 skewed": simulated("lenet5", skewed),
    "sim:mobilenet_v1": simulated("mobilenet_v1", even),
    "netadapt": netadapt,
    "mlperf": mlperf,
    "hat": hat,
}
DEFAULT_TASKS = ("sim:lenet5", "sim:lenet5 uneven", "netadapt", "mlperf")
CHAINS = ("aligned", "bilinear", "flops", "lookup")


def models_for(task: str) -> list[str]:
    """Return the predictors that can be fitted to a task's rows."""
    chains = () if task in ("mlperf", "hat") else CHAINS
    fitting = [name for name in registry.names() if name not in NEED_MORE]
    return [name for name in fitting if name not in CHAINS or name in chains]


# -- judging -------------------------------------------------------------------------------------


def judge(task: str, model: str, num_rows: int, seed: int) -> Sample:
    """Return what the intervals of a fit to some rows do on others."""
    predictor, rest = fitted(task, model, num_rows, seed)
    assert predictor.held_out_ is not None
    prediction = predictor.predict_arrays(rest.X)
    low, high = predictor.predict_interval(rest.X, COVERAGE)
    half = plain_half_width(predictor.held_out_) * np.abs(prediction)
    inside = (low <= rest.y) & (rest.y <= high)
    order = np.argsort(prediction, kind="stable")
    small, middle, large = (float(part.mean()) for part in np.array_split(inside[order], 3))
    return Sample(
        float(inside.mean()),
        (small, middle, large),
        float(np.mean((high - low) / rest.y)),
        interval_score(rest.y, low, high),
        interval_score(rest.y, prediction - half, prediction + half),
    )


def fitted(task: str, model: str, num_rows: int, seed: int) -> tuple[Predictor, Rows]:
    """Return a predictor fitted to a random sample, and up to 400 of the other rows."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = TASKS[task](num_rows + NUM_TEST, seed)
    order = np.random.default_rng(seed).permutation(len(rows.y))
    train, test = order[:num_rows], order[num_rows : num_rows + NUM_TEST]
    predictor = registry.predictor_class(model)(rows.spec).fit(rows.X[train], rows.y[train])
    return predictor, Rows(rows.spec, rows.X[test], rows.y[test])


def plain_half_width(held_out: HeldOut) -> float:
    """Return the relative half width of the plain interval: a quantile of absolute errors."""
    level = min(1.0, COVERAGE * (1 + 1 / held_out.num_distinct))
    return float(np.quantile(np.abs(held_out.relative), level, method="higher"))


def interval_score(y: FloatArray, low: FloatArray, high: FloatArray) -> float:
    """Return the mean interval score over the measured cost; smaller is better.

    Source: Gneiting, Raftery, "Strictly proper scoring rules, prediction, and estimation", 2007.
    """
    missed = np.maximum(low - y, 0) + np.maximum(y - high, 0)
    return float(np.mean((high - low + 2 / (1 - COVERAGE) * missed) / y))


def print_inside(
    tasks: list[str], models: list[str], num_rows: int, splits: int, jobs: int
) -> None:
    """Print a line for each task and predictor."""
    print(
        f"\n{num_rows} rows, {splits} samples, nominal {COVERAGE:.0%}\n"
        f"{'task':18} {'model':9} {'mean':>6} {'worst':>6}   {'small, middle, large':20} "
        f"{'width':>6} {'score':>6} {'plain':>6} {'seconds':>8}"
    )
    for task in tasks:
        for model in [name for name in models_for(task) if name in models or not models]:
            began = time.perf_counter()
            try:
                samples = Parallel(jobs)(
                    delayed(judge)(task, model, num_rows, seed) for seed in range(splits)
                )
            except InputError as error:
                print(f"{task:18} {model:9} {error}")
                continue
            seconds = time.perf_counter() - began
            coverage = np.array([sample.coverage for sample in samples])
            thirds = np.mean([sample.thirds for sample in samples], axis=0)
            width, score, plain = np.mean([(s.width, s.score, s.plain_score) for s in samples], 0)
            print(
                f"{task:18} {model:9} {coverage.mean():6.1%} {coverage.min():6.1%}   "
                f"{'  '.join(f'{third:.1%}' for third in thirds):20} {width:6.1%} {score:6.3f} "
                f"{plain:6.3f} {seconds:8.0f}",
                flush=True,
            )


# -- outside the measured range ------------------------------------------------------------------


def outside(model: str, name: str, num_rows: int, seed: int) -> Iterator[tuple[float, bool, bool]]:
    """Yield each test row's distance, and whether the interval holds it without and with widening."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    spec = networks.get(name)
    bounds = np.array(spec.max_widths, dtype=np.float64)
    rng = np.random.default_rng(seed)
    inner = np.ceil(bounds * rng.uniform(0.3, 0.7, (num_rows + 2 * NUM_TEST, len(bounds))))
    train, test = inner[:num_rows], inner[num_rows:]
    # Half of the test rows leave the range with one width, the others with all they can.
    whole = draw_widths(spec, len(test), seed)
    one = np.arange(len(bounds)) == rng.integers(len(bounds), size=(len(test), 1))
    test = np.where(one | (np.arange(len(test)) % 2 == 0)[:, None], whole, test)
    hardware = SystolicArrayModel(spec, hardware="eyeriss", quantity="latency")
    noise = 1 + 0.03 * rng.standard_normal(len(inner))
    y, y_new = hardware.predict(train) * noise[:num_rows], hardware.predict(test) * noise[num_rows:]
    predictor = registry.predictor_class(model)(spec).fit(train, y)
    factor = widening(torch.from_numpy(test), predictor.width_ranges_).numpy()
    prediction = predictor.predict_arrays(test)
    low, high = predictor.predict_interval(test, COVERAGE)
    wide = (low <= y_new) & (y_new <= high)
    below, above = (prediction - low) / factor, (high - prediction) / factor
    narrow = (prediction - below <= y_new) & (y_new <= prediction + above)
    distances = (factor - 1) / GROWTH_OUTSIDE
    yield from zip(distances.tolist(), narrow.tolist(), wide.tolist(), strict=True)


def print_outside(models: list[str], num_rows: int, seeds: int) -> None:
    """Print coverage by the distance from the measured range."""
    print(
        "\noutside the measured range: rows, coverage without and with widening, by distance in "
        f"ranges\n{'task':18} {'model':9}"
        + "".join(f"{f'to {high:g}' if high else 'inside':>22}" for high in DISTANCES)
    )
    for name in ("lenet5", "mobilenet_v1"):
        for model in models or ["flops", "bilinear", "aligned"]:
            found = [row for seed in range(seeds) for row in outside(model, name, num_rows, seed)]
            table = np.array(found, dtype=np.float64)
            cells, low = [], -1.0
            for high in DISTANCES:
                chosen = table[(table[:, 0] > low) & (table[:, 0] <= high)]
                _, narrow, wide = chosen.mean(axis=0) if len(chosen) else np.full(3, np.nan)
                cells.append(f"{f'{len(chosen)}: {narrow:.1%} {wide:.1%}':>22}")
                low = high
            print(f"{f'sim:{name}':18} {model:9}" + "".join(cells), flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="*", default=list(DEFAULT_TASKS), choices=list(TASKS))
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument("--rows", nargs="*", type=int, default=[100])
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    for num_rows in arguments.rows:
        print_inside(arguments.tasks, arguments.models, num_rows, arguments.splits, arguments.jobs)
    print_outside(arguments.models, arguments.rows[0], seeds=3)


if __name__ == "__main__":
    main()
