"""Random odd tables, fitted by every predictor: a fit that makes sense, or one of joulemap's errors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from joulemap import InputError
from joulemap.datasets import LayerSpec, NetworkSpec, Width
from joulemap.models import BilinearPredictor, Predictor, TransferPredictor, registry
from joulemap.models.base.intervals import FloatArray
from joulemap.models.testing import ArrayDataset, draw_widths

from . import Outcome, Trial

NUM_TABLES = 3
# Few rows to learn from: the promise is about errors, not about accuracy.
QUICK: dict[str, dict[str, Any]] = {
    "auto": {"candidates": ["flops", "bilinear"]},
    "gp": {"learning_rows": 12},
    "layerwise": {"divisor": 1, "block": 1},
    "lookup": {"knots": 2, "penalty": 1.0},
    "neural": {"members": 2, "epochs": 5},
    "trees": {"trees": 5},
}
SPEC = NetworkSpec(
    "pair",
    "zoo:pair",
    (3, 8, 8),
    (Width("a", 32), Width("b", 48)),
    (
        LayerSpec("first", "conv", 3, "a", kernel_size=3, in_size=8, out_size=8),
        LayerSpec("second", "conv", "a", "b", kernel_size=3, in_size=8, out_size=8),
        LayerSpec("last", "linear", "64*b", 10),
    ),
)


def predictor_named(name: str, spec: NetworkSpec | None) -> Predictor:
    """Return an unfitted predictor with cheap settings."""
    if name == "transfer":
        X = draw_widths(SPEC, 30)
        return TransferPredictor(spec, sources=[BilinearPredictor(spec).fit(X, 1 + X.sum(axis=1))])
    return registry.predictor_class(name)(spec, **QUICK.get(name, {}))


def odd_table(rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return widths (n, 2) and costs (n,) with what tables of users have had."""
    X = draw_widths(SPEC, int(rng.choice([1, 2, 3, 5, 8, 30])), int(rng.integers(1 << 30)))
    y = 1e-4 * (1 + X.sum(axis=1)) * rng.lognormal(0, 0.02, len(X))
    for change in rng.choice(10, rng.integers(0, 3), replace=False):
        row = int(rng.integers(len(X)))
        if change == 0:
            y = y * 10.0 ** rng.choice([-300, -40, -20, 20, 40, 300])
        elif change == 1:
            y[row] = rng.choice([0.0, -1.0, np.nan, np.inf, 1e300, 1e-300, 1e6])
        elif change == 2:
            X[row, rng.integers(2)] = rng.choice([0, -3, 0.5, 1e300, 1e12, np.nan, 5000])
        elif change == 3:
            X[:, rng.integers(2)] = 7
        elif change == 4:
            X[:] = X[row]
        elif change == 5:
            y = np.full(len(X), 0.1)
        elif change == 6:
            X, y = np.repeat(X, 3, axis=0), np.repeat(y, 3)
        elif change == 7:
            X = np.where(X > 16, 32.0, 1.0)
        elif change == 8:
            y = 10.0 ** rng.uniform(-25, 25, len(X))
        else:
            y = y[::-1] ** 3
    return X, y


def flaw(name: str, X: FloatArray, y: FloatArray, how: str) -> str | None:
    """Return what is wrong with a predictor's answer to a table; None for a fit or a clear error.

    Args:
        name: Of the predictor.
        X: Widths, shape (n, 2).
        y: Costs, shape (n,).
        how: 'dataset', 'network' or 'table': fitted to a dataset, or to arrays with or without a
            network.
    """
    spec = None if how == "table" else SPEC
    predictor = predictor_named(name, spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if how == "dataset":
                predictor.fit_dataset(ArrayDataset(SPEC, X, {"latency_s": y}), "latency_s")
            else:
                predictor.fit(X, y)
            cost = predictor.predict(X)
            ends = predictor.predict_interval(X)
        except InputError as error:
            return f"an error of {len(str(error))} characters" if len(str(error)) >= 400 else None
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            return f"{type(error).__name__}: {error!s:.200}"
    if not np.all(np.isfinite(cost) & (cost > 0)):
        return f"predicts {cost[~(np.isfinite(cost) & (cost > 0))][:3]}"
    return None if np.all(np.isfinite(ends)) else "gives intervals that are not finite"


def run(number: int) -> Outcome:
    """Give a few odd tables to every predictor in every way."""
    rng = np.random.default_rng(number)
    failures: list[str] = []
    tries = 0
    for table in range(NUM_TABLES):
        X, y = odd_table(rng)
        for name in registry.names():
            how = str(rng.choice(["dataset", "network", "table"]))
            tries += 1
            if found := flaw(name, X, y, how):
                failures.append(f"seed {number}, table {table}: {name}, {how}: {found}")
    return Outcome(tries, tuple(failures))


TRIALS = (
    Trial(
        name="odd-tables",
        promise="odd tables are fitted with finite, positive costs or refused in plain words",
        rounds=60,
        run=run,
    ),
)
