"""New devices from few measurements: rank correlations on NAS-Bench-201, errors on MobileNetV1.

NAS-Bench-201: nine source devices, four targets. A draw measures k of the 15,625 networks on the
target, at random or as `SourceStacker.select` chooses them from 1,500 random candidates; all other
networks are the test set. Printed are the mean Spearman correlation over the draws and its standard
deviation over them. Denoised sources are boosted trees of each source on the networks' choices;
the target's costs are never seen by them.

MobileNetV1: predictors fitted to 200 variants on simulated Eyeriss, transferred to a simulated TPU
from k measurements, beside fits to those alone; errors over 1,000 other variants.

python benchmarks/transfer.py [--draws 30] [--samples 5 10 20 50] [--targets NAME ...] [--skip-widths]
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import Ridge

from joulemap import models
from joulemap.datasets import CostDataset, public
from joulemap.datasets.metrics import mape, spearman
from joulemap.models import ExtrapolationWarning, SystolicArrayModel, TransferPredictor
from joulemap.models.base.intervals import FloatArray
from joulemap.models.transfer.predictor import SourceStacker, denoise
from joulemap.profiler import networks, sample

SOURCES = (
    "1080ti_1",
    "1080ti_32",
    "1080ti_256",
    "silver_4114",
    "silver_4210r",
    "samsung_a50",
    "pixel3",
    "essential_ph_1",
    "samsung_s7",
)
# Targets, and what HELP published for them (10 measurements and 10 more for fine-tuning).
TARGETS = {"titan_rtx_256": 0.987, "gold_6226": 0.989, "pixel2": 0.802, "raspi4": 0.890}
NUM_CANDIDATES = 1500
CEILING_SAMPLES = 1000

Rows = np.ndarray
Method = Callable[[FloatArray, FloatArray], Callable[[FloatArray], FloatArray]]


def ridge(sources: FloatArray, y: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Return the bar: ridge regression on standardised log costs."""
    logs = np.log(sources)
    center, scale = logs.mean(axis=0), np.maximum(logs.std(axis=0), 1e-9)
    model = Ridge().fit((logs - center) / scale, np.log(y))
    return lambda costs: np.asarray(model.predict((np.log(costs) - center) / scale))


def stacker(sources: FloatArray, y: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Return joulemap's combination."""
    return SourceStacker().fit(sources, y).predict


def random_rows(total: int, k: int, rng: np.random.Generator) -> Rows:
    """Return k random rows."""
    return rng.choice(total, k, replace=False)


def chosen_rows(sources: FloatArray, k: int, rng: np.random.Generator) -> Rows:
    """Return the k rows that `select` chooses from random candidates."""
    candidates = random_rows(len(sources), NUM_CANDIDATES, rng)
    return candidates[SourceStacker().select(sources[candidates], k)]


def correlations(
    sources: FloatArray, cost: FloatArray, method: Method, several: Sequence[Rows]
) -> FloatArray:
    """Return the correlation over all other networks for each draw of measured rows."""
    found = []
    for rows in several:
        rest = np.ones(len(cost), dtype=bool)
        rest[rows] = False
        predict = method(sources[rows], cost[rows])
        found.append(spearman(cost[rest], predict(sources[rest])))
    return np.array(found)


def nas_bench_201(counts: Sequence[int], draws: int, targets: Sequence[str]) -> None:
    """Print the table of every number of measurements."""
    table = public.load("help")["cells"]
    sources = np.column_stack([table.xyw(f"{name}_s")[1] for name in SOURCES])
    clean = denoise(table.xyw(f"{SOURCES[0]}_s")[0], sources)
    costs = {name: table.xyw(f"{name}_s")[1] for name in targets}
    total = len(sources)

    def line(label: str, values: dict[str, FloatArray]) -> None:
        columns = [f"{v.mean():>9.3f} ±{v.std():.3f}" for v in values.values()]
        over = np.mean(list(values.values()), axis=0)
        print(f"{label:<30}" + "".join(columns) + f"{over.mean():>9.4f} ±{over.std():.4f}")

    print("NAS-Bench-201, Spearman" + " " * 7 + "".join(f"{n:>16}" for n in targets) + "    mean")
    print(
        f"{'HELP, published (10 + 10)':<30}"
        + "".join(f"{TARGETS[n]:>9.3f}       " for n in targets)
        + f"{np.mean([TARGETS[n] for n in targets]):>9.4f}"
    )
    for k in counts:
        rng = np.random.default_rng(k)
        random = [random_rows(total, k, rng) for _ in range(draws)]
        raw_chosen = [chosen_rows(sources, k, rng) for _ in range(draws)]
        chosen = [chosen_rows(clean, k, rng) for _ in range(draws)]
        cases: list[tuple[str, FloatArray, Method, list[Rows]]] = [
            ("ridge, raw, random", sources, ridge, random),
            ("stacker, raw, random", sources, stacker, random),
            ("stacker, raw, chosen", sources, stacker, raw_chosen),
            ("ridge, denoised, random", clean, ridge, random),
            ("stacker, denoised, random", clean, stacker, random),
            ("stacker, denoised, chosen", clean, stacker, chosen),
        ]
        for label, costs_of, method, rows in cases:
            values = {n: correlations(costs_of, y, method, rows) for n, y in costs.items()}
            line(f"{k:>2} {label}", values)
    rng = np.random.default_rng(0)
    many = [random_rows(total, CEILING_SAMPLES, rng) for _ in range(3)]
    line(
        "ceiling: stacker, 1,000",
        {n: correlations(clean, y, stacker, many) for n, y in costs.items()},
    )


def widths_on_simulators(counts: Sequence[int], draws: int) -> None:
    """Print errors of a transfer from simulated Eyeriss to a simulated TPU."""
    spec = networks.get("mobilenet_v1")
    eyeriss, tpu = (
        SystolicArrayModel(spec, name, quantity="latency") for name in ("eyeriss", "tpu")
    )

    def measured(widths: FloatArray, device: SystolicArrayModel) -> CostDataset:
        frame = {name: widths[:, i] for i, name in enumerate(spec.width_names)}
        cost = device.predict(widths)
        return CostDataset.from_frame(
            pd.DataFrame(frame | {"latency_s": cost}), spec, units={"latency_s": "s"}
        )

    source = models.fit(measured(np.array(sample(spec, 200, seed=7)), eyeriss), "aligned")
    pool = np.array(sample(spec, 2048, seed=1), dtype=np.float64)
    test = np.array(sample(spec, 1000, sampling="uniform", seed=2), dtype=np.float64)
    truth = tpu.predict(test)
    print(f"\n{spec.name}, sim:eyeriss -> sim:tpu{'':<10}{'MAPE':>16}{'Spearman':>20}")

    def line(label: str, predictions: list[FloatArray]) -> None:
        errors = np.array([mape(truth, p) for p in predictions])
        ranks = np.array([spearman(truth, p) for p in predictions])
        print(
            f"{label:<42}{errors.mean():>8.1%} ±{errors.std():.1%}{ranks.mean():>12.3f} ±{ranks.std():.3f}"
        )

    line("source alone", [source.predict(test)])
    for k in counts:
        rng = np.random.default_rng(k)
        found: dict[str, list[FloatArray]] = {}
        for _ in range(draws):
            part = pool[random_rows(len(pool), 512, rng)]
            predictor = TransferPredictor(sources=[source])
            for label, rows in (
                ("random", np.arange(k)),
                ("chosen", predictor.select(part, k)),
            ):
                fitted = predictor.fit(part[rows], tpu.predict(part[rows]))
                found.setdefault(f"transfer, {label}", []).append(fitted.predict(test))
            data = measured(part[:k], tpu)
            for model in ("flops", "aligned", "gp"):
                scratch = models.registry.predictor_class(model)(spec)
                if k >= scratch.num_needed(len(spec.widths)):
                    found.setdefault(f"{model} from scratch, random", []).append(
                        scratch.fit_dataset(data).predict(test)
                    )
        for label, predictions in found.items():
            line(f"{k:>2} {label}", predictions)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draws", type=int, default=30)
    parser.add_argument("--samples", type=int, nargs="+", default=[5, 10, 20, 50])
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--skip-widths", action="store_true")
    parser.add_argument("--skip-networks", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # Ten points span less than the test widths do, which is what fits from scratch suffer from.
    warnings.simplefilter("ignore", ExtrapolationWarning)
    if not arguments.skip_networks:
        nas_bench_201(arguments.samples, arguments.draws, arguments.targets)
    if not arguments.skip_widths:
        widths_on_simulators(arguments.samples, min(arguments.draws, 10))


if __name__ == "__main__":
    main()
