"""Tables as no device gives them: a predictor refuses them in plain words, or its costs make sense."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.datasets import LayerSpec, NetworkSpec, Width
from joulemap.models import (
    AlignedBilinearPredictor,
    BilinearPredictor,
    LookupTablePredictor,
    registry,
)
from joulemap.models.testing import draw_widths

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
QUICK: dict[str, dict[str, Any]] = {
    "auto": {"candidates": ["flops", "bilinear"]},
    "gp": {"learning_rows": 12},
    "neural": {"members": 2, "epochs": 5},
    "trees": {"trees": 5},
}
COST = st.floats(1e-4, 1.0)
ODD_COST = st.sampled_from((0.0, -1.0, 1e-300, 1e-31, 1e31, 1e300, np.nan, np.inf, 1e-20, 1e20))
ODD_WIDTH = st.sampled_from((0.0, -3.0, 0.5, 5000.0, 1e12, 1e300, np.nan, np.inf))
ROW = st.tuples(
    st.integers(1, 32).map(float) | ODD_WIDTH, st.integers(1, 48).map(float), COST | ODD_COST
)
SOUND_ROW = st.tuples(st.integers(1, 32), st.integers(1, 48), COST | st.sampled_from((1e-20, 1e20)))


def flaw(predictor: Any, rows: list[tuple[float, float, float]]) -> str | None:
    """Return what is wrong with how a predictor answers to widths and costs, None for nothing."""
    table = np.array(rows, dtype=float).reshape(-1, 3)
    X, y = table[:, :2], table[:, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            cost = predictor.fit(X, y).predict(X)
            ends = predictor.predict_interval(X)
        except InputError as error:
            return None if len(str(error)) < 400 else f"a message of {len(str(error))} characters"
    if not np.all(np.isfinite(cost) & (cost > 0)):
        return f"costs {cost}"
    return None if np.all(np.isfinite(ends)) else f"ends {ends}"


@given(st.lists(ROW, max_size=12), st.booleans())
def test_odd_rows_are_refused_in_a_sentence_or_fitted(
    rows: list[tuple[float, float, float]], has_network: bool
) -> None:
    assert flaw(BilinearPredictor(SPEC if has_network else None), rows) is None


@given(st.lists(SOUND_ROW, min_size=2, max_size=12), st.booleans())
def test_tables_of_layers_never_cost_nothing(
    rows: list[tuple[float, float, float]], has_network: bool
) -> None:
    predictor = LookupTablePredictor(SPEC if has_network else None, knots=2, penalty=1.0, divisor=1)
    assert flaw(predictor, rows) is None


@pytest.mark.parametrize("has_network", [True, False])
@pytest.mark.parametrize("name", [name for name in registry.names() if name != "transfer"])
def test_as_few_rows_as_a_predictor_accepts_are_fitted(name: str, has_network: bool) -> None:
    predictor = registry.predictor_class(name)(SPEC if has_network else None, **QUICK.get(name, {}))
    X = np.unique(draw_widths(SPEC, 40), axis=0)[: predictor.num_needed(2)]
    # One of them twice: what is held out are all rows of one of two variants.
    X = np.vstack([X, X[:1]])
    rows = [(*row, 1e-3 * (1 + sum(row))) for row in X.tolist()]
    assert flaw(predictor, rows) is None


def test_one_of_two_variants_chooses_no_structure() -> None:
    X = np.array([[32.0, 32.0], [32.0, 32.0], [1.0, 32.0]])
    predictor = AlignedBilinearPredictor().fit(X, [7.3e-3, 6.6e-3, 3.3e-3])
    assert np.isfinite(predictor.predict(X)).all()
