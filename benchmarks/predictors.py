"""Predictors judged on measurements by others (`joulemap.datasets.public`).

The public sets, and simulated devices without regimes (`without_regimes.py`). For each set, table and number of training samples: the mean absolute percentage error with its
spread, Spearman's and Kendall's rank correlation, and the shares of predictions within 5 and 10 %,
for lines in multiply-accumulates and in parameters, for every predictor of joulemap that needs no
network, and for scikit-learn's trees, beside the bar and what was published (`predictors.toml`).
Rows from few samples are medians over seeds, rows over folds judge every row of the table by the
fit that did not see it; the spread is from the smallest to the largest error over seeds or folds.

python benchmarks/predictors.py [--sets netadapt mlperf ...] [--seeds 10] [--out DIR]

With --out: `predictors.json` and `predictors.html`, one page with plots.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from predictors_page import write_page
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from threadpoolctl import threadpool_limits
from without_regimes import devices

from joulemap import InputError
from joulemap.datasets import CostTable, public
from joulemap.datasets.metrics import kendall, mape, share_within, spearman
from joulemap.models import GaussianProcessPredictor, farthest_points, registry
from joulemap.models.base.training import Training
from joulemap.models.linear.predictor import fit_nonnegative
from joulemap.models.testing import draw_widths

BARS = tomllib.loads((Path(__file__).parent / "predictors.toml").read_text(encoding="utf-8"))
HELP_SOURCES = (
    "1080ti_1_s",
    "1080ti_32_s",
    "1080ti_256_s",
    "silver_4114_s",
    "silver_4210r_s",
    "samsung_a50_s",
    "pixel3_s",
    "essential_ph_1_s",
    "samsung_s7_s",
)
HELP_TARGETS = ("titan_rtx_256_s", "gold_6226_s", "pixel2_s", "raspi4_s")
# Rows of a table that are used, at most: a random choice beyond.
MAX_ROWS = 4000
# Channels between the points whose difference is judged.
STEP = 32
# Predictors whose features are products of widths along a chain of layers.
CHAINS = ("aligned", "bilinear", "flops", "params")


@dataclass(frozen=True)
class Row:
    """What one model reached on one task.

    Attributes:
        task: Set, table, target and task, joined by slashes.
        num_training: Rows that it was fitted to, on average.
        model: The model.
        error: Mean absolute percentage error, a fraction: median over seeds, or of all folds.
        low: Smallest error over seeds or folds.
        high: Largest.
        spearman: Rank correlation.
        kendall: Rank correlation.
        within_5: Share of predictions within 5 %.
        within_10: Share within 10 %.
        seconds: One fit and its predictions, on average.
    """

    task: str
    num_training: int
    model: str
    error: float
    low: float
    high: float
    spearman: float
    kendall: float
    within_5: float
    within_10: float
    seconds: float


def models_for(table: CostTable) -> list[str]:
    """Return the models that can be fitted to a table."""
    joulemap = [name for name in registry.names() if name in ("gp", "neural", "trees")]
    if table.feature_names == ("in_channels", "out_channels"):
        joulemap += CHAINS
    else:
        joulemap += [name for name in ("MACs", "parameters") if _quantity(table, name) is not None]
    return [*joulemap, "boosted trees", "extra trees"]


def _quantity(table: CostTable, name: str) -> np.ndarray | None:
    wanted = name.lower()
    columns = table.to_pandas()
    if wanted in columns:
        return columns[wanted].to_numpy(dtype=np.float64)
    if wanted == "macs":
        parts = [c for c in columns if str(c).endswith("macs")]
        if parts:
            return columns[parts].sum(axis=1).to_numpy(dtype=np.float64)
    return None


def predict(model: str, table: CostTable, target: str, train: np.ndarray) -> np.ndarray:
    """Return predictions for all rows of a fit to some of them (a mask)."""
    X, y, _ = table.xyw(target)
    if model in ("MACs", "parameters"):
        quantity = _quantity(table, model)
        assert quantity is not None
        X = quantity[:, None]
        weights = 1 / y[train] ** 2
        intercept, slope = fit_nonnegative(X[train], y[train], weights)
        return np.asarray(intercept + X @ slope)
    if model == "boosted trees":
        trees = HistGradientBoostingRegressor(
            max_iter=500, learning_rate=0.05, min_samples_leaf=5, random_state=0
        )
        return np.asarray(np.exp(trees.fit(X[train], np.log(y[train])).predict(X)))
    if model == "extra trees":
        trees = ExtraTreesRegressor(200, random_state=0)
        return np.asarray(np.exp(trees.fit(X[train], np.log(y[train])).predict(X)))
    predictor = registry.predictor_class(model)()
    folds = np.where(train, -1, 0)
    predicted = np.full(len(y), np.nan)
    test = ~train
    held_out = predictor.predict_held_out(table, target, folds)
    predicted[test] = held_out[test]
    return predicted


def score(
    name: str, table: CostTable, target: str, splits: list[np.ndarray], over_folds: bool
) -> Iterator[Row]:
    """Yield a row for each model over splits, masks of training rows.

    Over folds every row is predicted once and all are judged together; otherwise each split is
    judged by itself and the medians are given.
    """
    y = table.xyw(target)[1]
    for model in models_for(table):
        began = time.perf_counter()
        try:
            parts = [(~train, predict(model, table, target, train)[~train]) for train in splits]
        except InputError as error:
            print(f"  {model}: not fitted, {error}", file=sys.stderr)
            continue
        seconds = (time.perf_counter() - began) / len(splits)
        errors = [mape(y[test], predicted) for test, predicted in parts]
        if over_folds:
            truth = np.concatenate([y[test] for test, _ in parts])
            figures = judged(truth, np.concatenate([predicted for _, predicted in parts]))
        else:
            figures = np.median([judged(y[test], predicted) for test, predicted in parts], axis=0)
        median, rank, tau, within_5, within_10 = map(float, figures)
        yield Row(
            task=name,
            num_training=int(np.mean([train.sum() for train in splits])),
            model=model,
            error=median,
            low=min(errors),
            high=max(errors),
            spearman=rank,
            kendall=tau,
            within_5=within_5,
            within_10=within_10,
            seconds=seconds,
        )


def judged(y: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return error, both rank correlations and the shares within 5 and 10 %."""
    return np.array(
        [
            mape(y, predicted),
            spearman(y, predicted),
            kendall(y, predicted),
            share_within(y, predicted, 0.05),
            share_within(y, predicted, 0.1),
        ]
    )


def folds_of(count: int, seed: int = 0, number: int = 5) -> list[np.ndarray]:
    """Return masks of training rows of each fold."""
    folds = np.random.default_rng(seed).permutation(count) % number
    return [folds != fold for fold in range(number)]


def draws_of(count: int, size: int, seeds: int) -> list[np.ndarray]:
    """Return masks of random training rows, one for each seed."""
    masks = []
    for seed in range(seeds):
        mask = np.zeros(count, dtype=bool)
        mask[np.random.default_rng(seed).permutation(count)[:size]] = True
        masks.append(mask)
    return masks


def limited(table: CostTable, target: str, most: int = MAX_ROWS) -> CostTable:
    """Return the rows that have the target, a random choice of at most so many."""
    known = np.flatnonzero(np.isfinite(table.cost[target].to_numpy(dtype=np.float64)))
    chosen = np.random.default_rng(0).permutation(known)[:most]
    return table.rows(np.sort(chosen))


# -- the sets ------------------------------------------------------------------------------------


def netadapt(seeds: int) -> Iterator[Row]:
    """Yield the rows of AlexNet's layers on a V100."""
    tables = public.load("netadapt")
    groups = {
        "3x3 layers": ["alexnet.features.6", "alexnet.features.8", "alexnet.features.10"],
        "features.3": ["alexnet.features.3"],
        "fc layers": ["alexnet.classifier.1", "alexnet.classifier.4"],
    }
    for group, names in groups.items():
        for target in ("latency_s", "energy_gross_j"):
            if target == "energy_gross_j" and group == "fc layers":
                continue
            parts = [
                list(
                    score(
                        "",
                        limited(tables[name], target),
                        target,
                        folds_of(len(limited(tables[name], target))),
                        over_folds=True,
                    )
                )
                for name in names
            ]
            yield from averaged(f"netadapt/{group}/{target}/5-fold", parts)
    for count in (100, 200, 500):
        parts = [
            list(
                score(
                    "",
                    tables[name],
                    "latency_s",
                    draws_of(len(tables[name]), count, seeds),
                    over_folds=False,
                )
            )
            for name in groups["3x3 layers"]
        ]
        yield from averaged(f"netadapt/3x3 layers/latency_s/{count} points", parts)


def averaged(name: str, parts: list[list[Row]]) -> Iterator[Row]:
    """Yield the means of rows over several tables, model by model."""
    for model in dict.fromkeys(row.model for part in parts for row in part):
        rows = [row for part in parts for row in part if row.model == model]
        if len(rows) < len(parts):
            continue
        yield Row(
            task=name,
            num_training=int(np.mean([row.num_training for row in rows])),
            model=model,
            error=float(np.mean([row.error for row in rows])),
            low=min(row.low for row in rows),
            high=max(row.high for row in rows),
            spearman=float(np.mean([row.spearman for row in rows])),
            kendall=float(np.mean([row.kendall for row in rows])),
            within_5=float(np.mean([row.within_5 for row in rows])),
            within_10=float(np.mean([row.within_10 for row in rows])),
            seconds=float(np.mean([row.seconds for row in rows])),
        )


def differences(seeds: int) -> list[str]:
    """Return the errors of predicted differences over 32 channels, at 200 points."""
    table = public.load("netadapt")["alexnet.features.10"]
    X, y, _ = table.xyw("latency_s")
    places = {tuple(row): index for index, row in enumerate(X.tolist())}
    pairs = [
        (index, places[further])
        for (inputs, outputs), index in places.items()
        for further in ((inputs + STEP, outputs), (inputs, outputs + STEP))
        if further in places
    ]
    first, second = np.array(pairs).T
    truth = y[second] - y[first]
    lines = []
    found: dict[str, list[float]] = {}
    for train in draws_of(len(y), 200, seeds):
        predictor = GaussianProcessPredictor().fit(X[train], y[train])
        with torch.no_grad():
            smooth = predictor.to_torch(smooth=True)(torch.tensor(X)).numpy()
        values = {"gp": predictor.predict(X), "gp, smooth module": smooth}
        values["boosted trees"] = predict("boosted trees", table, "latency_s", train)
        for model, predicted in values.items():
            wrong = np.abs(predicted[second] - predicted[first] - truth).sum()
            found.setdefault(model, []).append(float(wrong / np.abs(truth).sum()))
    for model, errors in found.items():
        lines.append(f"{model:22} {np.median(errors):.3f} ({min(errors):.3f} to {max(errors):.3f})")
    return lines


def mlperf(seeds: int) -> Iterator[Row]:
    """Yield the rows of MobileNets on boards."""
    tables, target = public.load("mlperf"), "energy_gross_j"
    left_out, chosen = [], []
    for table in tables.values():
        widths = table.labels["width"].to_numpy()
        splits = [widths != width for width in np.unique(widths)]
        left_out.append(list(score("", table, target, splits, over_folds=True)))
        mask = np.zeros(len(table), dtype=bool)
        mask[farthest_points(table.features, 8)] = True
        chosen.append(list(score("", table, target, [mask], over_folds=True)))
    yield from averaged(f"mlperf/mean of all/{target}/leave one width out", left_out)
    yield from averaged(f"mlperf/mean of all/{target}/8 chosen points", chosen)


def tinynas(seeds: int) -> Iterator[Row]:
    """Yield the rows of convolutions in TensorRT."""
    for name in ("fp32/1", "fp32/32", "fp16/1"):
        table = public.load("tinynas")[name]
        task = f"tinynas/{name}/latency_s/5-fold"
        yield from score(task, table, "latency_s", folds_of(len(table)), over_folds=True)


def tfnas(seeds: int) -> Iterator[Row]:
    """Yield the rows of inverted bottleneck blocks."""
    for name, table in public.load("tfnas").items():
        task = f"tfnas/{name}/latency_s/5-fold"
        yield from score(task, table, "latency_s", folds_of(len(table)), over_folds=True)


def accel_nasbench(seeds: int) -> Iterator[Row]:
    """Yield the rows of networks of the MnasNet space."""
    (table,) = public.load("accel_nasbench").values()
    for target in (
        "tpuv2_per_image_s",
        "tpuv3_per_image_s",
        "a100_per_image_s",
        "3090_per_image_s",
        "zcu102_latency_s",
        "vck190_latency_s",
    ):
        known = limited(table, target, len(table))
        train = (known.labels["split"] == "train").to_numpy()
        task = f"accel_nasbench/networks/{target}/train to val"
        yield from score(task, known, target, [train], over_folds=True)


def hat(seeds: int) -> Iterator[Row]:
    """Yield the rows of translation transformers."""
    (table,) = public.load("hat").values()
    for target in ("latency_s", "encoder_s", "decoder_s"):
        task = f"hat/transformers/{target}/5-fold"
        yield from score(task, table, target, folds_of(len(table)), over_folds=True)


def proxyless(seeds: int) -> Iterator[Row]:
    """Yield the rows of operators on a phone."""
    (table,) = public.load("proxyless").values()
    task = "proxyless/operators/latency_s/5-fold"
    yield from score(task, table, "latency_s", folds_of(len(table)), over_folds=True)


def without_regimes(seeds: int) -> Iterator[Row]:
    """Yield the rows of LeNet-5 on devices that have no regimes, for predictors of widths."""
    for device in devices(("lenet5",)):
        test = draw_widths(device.spec, 500, 999)
        truth = device.cost(test)
        for model in CHAINS:
            found, began = [], time.perf_counter()
            for seed in range(seeds):
                X = draw_widths(device.spec, 100, seed)
                noise = np.random.default_rng([seed, 1]).standard_normal(len(X))
                predictor = registry.predictor_class(model)(device.spec)
                predictor.bind(device.spec.width_names, unit="", target="cost")
                predictor.fit_arrays(
                    Training(X, device.cost(X) * np.exp(0.02 * noise), np.ones(len(X)))
                )
                found.append(judged(truth, predictor.predict_arrays(test)))
            seconds = (time.perf_counter() - began) / seeds
            errors = [float(figures[0]) for figures in found]
            _, rank, tau, within_5, within_10 = map(float, np.median(found, axis=0))
            yield Row(
                task=f"without regimes/{device.name}/100 points",
                num_training=100,
                model=model,
                error=float(np.median(errors)),
                low=min(errors),
                high=max(errors),
                spearman=rank,
                kendall=tau,
                within_5=within_5,
                within_10=within_10,
                seconds=seconds,
            )


def few_shot(seeds: int) -> list[str]:
    """Return lines with Spearman's correlation from ten measurements of a new device."""
    (cells,) = public.load("help").values()
    sources = cells.cost[list(HELP_SOURCES)].to_numpy()
    logs = np.log(sources)
    found: dict[str, dict[str, float]] = {"ridge on sources": {}, "gp on sources": {}}
    for target in HELP_TARGETS:
        y = cells.cost[target].to_numpy()
        ranks: dict[str, list[float]] = {name: [] for name in found}
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(len(y))
            train, test = order[:10], order[10:]
            center, scale = logs[train].mean(axis=0), logs[train].std(axis=0) + 1e-9
            ridge = RidgeCV(np.logspace(-3, 3, 13))
            ridge.fit((logs[train] - center) / scale, np.log(y[train]))
            predicted = ridge.predict((logs[test] - center) / scale)
            ranks["ridge on sources"].append(spearman(y[test], predicted))
            process = GaussianProcessPredictor().fit(sources[train], y[train])
            ranks["gp on sources"].append(spearman(y[test], process.predict(sources[test])))
        for name, values in ranks.items():
            found[name][target] = float(np.mean(values))
    published = BARS["help"]
    heads = [*(target.removesuffix("_s") for target in HELP_TARGETS), "mean"]
    lines = [f"{'Spearman, 10 samples':22}" + "".join(f"{head:>15}" for head in heads)]
    for name, by_target in found.items():
        values = [*by_target.values(), float(np.mean(list(by_target.values())))]
        lines.append(f"{name:22}" + "".join(f"{value:15.3f}" for value in values))
    values = [*(published[target] for target in HELP_TARGETS), published["mean"]]
    lines.append(f"{'HELP, published':22}" + "".join(f"{value:15.3f}" for value in values))
    lines.append(f"{'bar':22}" + " " * 60 + f"{published['bar']:15.3f}")
    return lines


SETS = {
    "netadapt": netadapt,
    "mlperf": mlperf,
    "tinynas": tinynas,
    "tfnas": tfnas,
    "accel_nasbench": accel_nasbench,
    "hat": hat,
    "proxyless": proxyless,
    "without_regimes": without_regimes,
}


def print_rows(rows: list[Row]) -> None:
    """Print the rows of one task after another, the lowest error first."""
    for task in dict.fromkeys(row.task for row in rows):
        bar = BARS["bars"].get(task)
        published = BARS["published"].get(task)
        same = sorted((row for row in rows if row.task == task), key=lambda row: row.error)
        print(f"\n{task}, {same[0].num_training} training rows")
        if bar is not None:
            print(f"bar {bar:.1%}" + (f"; {published}" if published else ""))
        print(
            f"{'model':16}{'error':>8}  {'spread':>16}{'rank':>7}{'tau':>7}{'<5 %':>7}{'<10 %':>7}"
        )
        for row in same:
            print(
                f"{row.model:16}{row.error:8.2%}  {f'{row.low:.2%} to {row.high:.2%}':>16}"
                f"{row.spearman:7.3f}{row.kendall:7.3f}{row.within_5:7.0%}{row.within_10:7.0%}"
            )


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=[*SETS, "help"], default=[*SETS, "help"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    threadpool_limits(limits=1)
    rows: list[Row] = []
    for name in arguments.sets:
        if name in SETS:
            found = list(SETS[name](arguments.seeds))
            print_rows(found)
            rows += found
        if name == "netadapt":
            print("\nError of differences over 32 channels, features.10 from 200 points; bar 0.10")
            print("\n".join(differences(arguments.seeds)), flush=True)
    print("\nA new device of NAS-Bench-201 (help)")
    shot = few_shot(arguments.seeds)
    print("\n".join(shot))
    needing = [name for name in registry.names() if name not in ("gp", "trees", *CHAINS)]
    print(f"\nNot judged here, since they need a network's layers: {', '.join(needing)}")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps([asdict(row) for row in rows], indent=1)
        (arguments.out / "predictors.json").write_text(text, encoding="utf-8")
        write_page(arguments.out / "predictors.html", [asdict(row) for row in rows], BARS, shot)
        print(f"Wrote {arguments.out}/predictors.html")


if __name__ == "__main__":
    main()
