"""How right the advice on rounding is on measured GPU layers, and how long its fits take.

Layers that others measured on a V100 at many input and output channels: AlexNet's convolutions in
PyTorch (a full grid in steps of 8, latency and energy) and TensorRT convolutions of three number
formats (random ones of those with at least 60 pairs of channels). The aligned model is fitted to a
part of a layer's rows; each other row is rounded as it advises, and where the rounded form was
measured too, both measured costs are compared. Alike are costs that differ by less than the noise:
1 % of a latency, 3 % of an energy.

- precision: of the rows that the advice changes, those whose rounded form costs no more; beside it
  those whose rounded form costs clearly less.
- recall: of the rows that cost clearly less when rounded to one of the multiples 2 to 32, those that
  cost clearly less when rounded as advised.

Intervals are over layers, by bootstrap, since rows of one layer share its advice. Seconds are those
of one `fit`, its held-out fits included, on one thread; the bilinear model and the Gaussian
process are fitted to the same rows of every eighth layer.

python benchmarks/rounding_advice.py --data FOLDER [--layers 40] [--seeds 3]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from joulemap import InputError
from joulemap.models import (
    AlignedBilinearPredictor,
    BilinearPredictor,
    GaussianProcessPredictor,
    Predictor,
)
from joulemap.models.aligned.advice import MULTIPLES, round_up

NETADAPT = "netadapt_v100_energy_latency/netadapt_v100_alexnet.csv.gz"
TINYNAS = "tinynas_v100_conv/tinynas_v100_conv.csv.gz"
LEAST_ROWS = 60
# Rows that a layer's model is fitted to, at most; and of a smaller table this share.
MOST_TRAINING, TRAINING_SHARE = 150, 2 / 3
OTHERS = {"bilinear": BilinearPredictor, "gp": GaussianProcessPredictor}


@dataclass(frozen=True)
class Layer:
    """One layer, measured at several input and output channels.

    Attributes:
        group: What it is counted with.
        X: Input and output channels, shape (n, 2).
        y: Cost, shape (n,).
        alike: Costs that differ by less are alike, as a fraction.
    """

    group: str
    X: np.ndarray
    y: np.ndarray
    alike: float


@dataclass(frozen=True)
class Counted:
    """Rows of one layer, by what advice does to them.

    Attributes:
        group: What they are counted with.
        is_advised: Whether anything is advised.
        changed: Rows that the advice changes, with a measured rounded form.
        no_dearer: Of these, whose rounded form costs no more.
        cheaper: Of these, whose rounded form costs clearly less.
        could: Rows that some multiple makes clearly cheaper.
        found: Of these, that the advice makes clearly cheaper.
        seconds: Of the fits, by model.
    """

    group: str
    is_advised: bool
    changed: int
    no_dearer: int
    cheaper: int
    could: int
    found: int
    seconds: dict[str, float]


def alexnet(data: Path) -> Iterator[Layer]:
    """Yield AlexNet's convolutions whose input and output channels vary."""
    rows = pd.read_csv(data / NETADAPT)
    rows = rows[(rows["layer"].str.startswith("features")) & (rows["cin_full"] > 3)]
    for _, layer in rows.groupby("layer"):
        X = layer[["cin", "cout"]].to_numpy(dtype=np.float64)
        for column, alike in (("latency_s", 0.01), ("energy_J", 0.03)):
            name = column.partition("_")[0]
            yield Layer(f"PyTorch fp32 {name}", X, layer[column].to_numpy(), alike)


def tensorrt(data: Path, count: int, seed: int) -> Iterator[Layer]:
    """Yield random regular convolutions of each number format."""
    rows = pd.read_csv(data / TINYNAS)
    rows = rows[rows["conv_type"] == "Regular"]
    keys = ["batch", "h_in", "w_in", "kernel", "stride", "elmt_fused"]
    rng = np.random.default_rng(seed)
    for precision, some in rows.groupby("precision"):
        layers = [layer for _, layer in some.groupby(keys) if len(layer) >= LEAST_ROWS]
        for place in rng.permutation(len(layers))[:count]:
            layer = layers[place].groupby(["cin", "cout"], as_index=False)["latency_ms"].median()
            X = layer[["cin", "cout"]].to_numpy(dtype=np.float64)
            y = layer["latency_ms"].to_numpy() * 1e-3
            yield Layer(f"TensorRT {precision} latency", X, y, 0.01)


def judged(layer: Layer, seed: int, *, is_timed: bool) -> Counted:
    """Return what the advice of a fit to some rows does to the others."""
    order = np.random.default_rng(seed).permutation(len(layer.y))
    count = min(MOST_TRAINING, int(TRAINING_SHARE * len(order)))
    train, test = order[:count], order[count:]
    seconds = {}
    predictor = AlignedBilinearPredictor()
    seconds["aligned"] = seconds_of(predictor, layer.X[train], layer.y[train])
    if is_timed:
        for name, cls in OTHERS.items():
            seconds[name] = seconds_of(cls(), layer.X[train], layer.y[train])
    costs = {tuple(row): cost for row, cost in zip(layer.X.tolist(), layer.y, strict=True)}
    least, last = np.ones(2), layer.X.max(axis=0)

    def ratios(multiples: Sequence[int]) -> np.ndarray:
        """Return the rounded form's cost over the row's; NaN where nothing changes or is known."""
        rounded = round_up(layer.X[test], multiples, least, last)
        found = np.array([costs.get(tuple(row), np.nan) for row in rounded.tolist()])
        return np.where(np.any(rounded != layer.X[test], axis=1), found / layer.y[test], np.nan)

    advised = ratios(predictor.advice_.multiples)
    options = [ratios((m, n)) for m in (1, *MULTIPLES) for n in (1, *MULTIPLES)]
    could = np.any([option < 1 - layer.alike for option in options], axis=0)
    cheaper = advised < 1 - layer.alike
    return Counted(
        layer.group,
        predictor.advice_.is_advised,
        int(np.isfinite(advised).sum()),
        int((advised <= 1 + layer.alike).sum()),
        int(cheaper.sum()),
        int(could.sum()),
        int((could & cheaper).sum()),
        seconds,
    )


def seconds_of(predictor: Predictor, X: np.ndarray, y: np.ndarray) -> float:
    """Return how long one fit takes."""
    start = time.perf_counter()
    predictor.fit(X, y)
    return time.perf_counter() - start


def share_of(several: Sequence[Counted], part: str, whole: str) -> str:
    """Return a share in percent with its 95 % interval over layers, and the counts."""
    parts, wholes = (np.array([getattr(one, name) for one in several]) for name in (part, whole))
    if not wholes.sum():
        return "none of 0"
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(several), (2000, len(several)))
    totals = wholes[drawn].sum(axis=1)
    shares = parts[drawn].sum(axis=1)[totals > 0] / totals[totals > 0]
    low, high = np.quantile(shares, [0.025, 0.975])
    percent = 100 * parts.sum() / wholes.sum()
    return f"{percent:.0f} % ({100 * low:.0f} to {100 * high:.0f}), {parts.sum()} of {wholes.sum()}"


def main() -> None:
    """Print a block for each group, and the seconds of all."""
    parser = argparse.ArgumentParser(description="Precision and recall of rounding advice.")
    parser.add_argument("--data", type=Path, required=True, help="folder with the public sets")
    parser.add_argument("--layers", type=int, default=40, help="TensorRT layers a number format")
    parser.add_argument("--seeds", type=int, default=3, help="random parts that are fitted to")
    parser.add_argument(
        "--timed", type=int, default=8, help="others fit each layer whose number this divides"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    layers = [*alexnet(arguments.data), *tensorrt(arguments.data, arguments.layers, seed=0)]
    found = []
    for number, layer in enumerate(layers):
        for seed in range(arguments.seeds):
            is_timed = seed == 0 and number % arguments.timed == 0
            try:
                found.append(judged(layer, seed, is_timed=is_timed))
            except InputError as error:
                print(f"{layer.group}: a layer cannot be fitted: {error}")
    for group in dict.fromkeys(layer.group for layer in layers):
        of_group = [one for one in found if one.group == group]
        print(f"{group}: {len(of_group)} fits, advice in {sum(o.is_advised for o in of_group)}")
        print(f"  precision, no dearer      {share_of(of_group, 'no_dearer', 'changed')}")
        print(f"  precision, clearly cheaper {share_of(of_group, 'cheaper', 'changed')}")
        print(f"  recall                    {share_of(of_group, 'found', 'could')}")
    for name in ("aligned", *OTHERS):
        times = [one.seconds[name] for one in found if name in one.seconds]
        low, middle, high = np.quantile(times, [0.1, 0.5, 0.9])
        print(
            f"seconds of a fit, {name}: {middle:.2f} ({low:.2f} to {high:.2f}, tenth to ninetieth)"
        )


if __name__ == "__main__":
    main()
