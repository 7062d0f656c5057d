from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor

from joulemap import InputError
from joulemap.datasets import NetworkSpec
from joulemap.models import Predictor, TreesPredictor, farthest_points, load
from joulemap.models.base.repeated_rows import merge_repeated
from joulemap.models.testing import EstimatorContract


class TestTrees(EstimatorContract):
    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        return TreesPredictor(spec, trees=40)


def jumps(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(seed).integers(1, 65, (count, 2)).astype(np.float64)
    return X, 1e-4 * np.where(X[:, 0] > 32, 3.0, 1.0) * (1 + X[:, 1] // 16)


def test_steps_are_learned_as_scikit_learn_does() -> None:
    X, y = jumps(300)
    new, truth = jumps(100, 1)
    predictor = TreesPredictor(trees=100, depth=3).fit(X, y)
    assert np.mean(np.abs(predictor.predict(new) / truth - 1)) < 0.02
    reference = GradientBoostingRegressor(
        n_estimators=100,
        max_depth=3,
        learning_rate=0.05,
        min_samples_leaf=3,
        subsample=0.5,
        init="zero",
        random_state=0,
    )
    rows, z, weights = merge_repeated(X, np.log(y), np.ones(300))
    center = np.average(z, weights=weights)
    reference.fit(rows, z - center, sample_weight=weights)
    np.testing.assert_allclose(
        predictor.predict(new), np.exp(reference.predict(new) + center), rtol=1e-9
    )


def test_there_is_no_torch_module() -> None:
    X, y = jumps(50)
    predictor = TreesPredictor(trees=5).fit(X, y)
    for is_smooth in (False, True):
        with pytest.raises(InputError, match="no gradient; fit model 'gp' or 'aligned'"):
            predictor.to_torch(smooth=is_smooth)


def change_nodes(row: int, column: int, value: float) -> Callable[[TreesPredictor], None]:
    def change(predictor: TreesPredictor) -> None:
        predictor.nodes_[row, column] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_nodes(0, 0, 0), "children"),
        (change_nodes(0, 1, 1e6), "children"),
        (change_nodes(0, 2, 5), "features"),
        (change_nodes(0, 0, 1.5), "children"),
        (lambda p: setattr(p, "roots_", np.array([-1.0])), "roots_"),
        (lambda p: setattr(p, "nodes_", np.zeros((3, 2))), "not a table"),
    ],
)
def test_a_file_without_trees_is_refused(
    tmp_path: Path, change: Callable[[TreesPredictor], None], message: str
) -> None:
    X, y = jumps(50)
    predictor = TreesPredictor(trees=5).fit(X, y)
    change(predictor)
    predictor.save(tmp_path / "trees.safetensors")
    with pytest.raises(InputError, match=message):
        load(tmp_path / "trees.safetensors")


@pytest.mark.parametrize("wrong", [{"trees": 0}, {"depth": 2.5}, {"learning_rate": 0.0}])
def test_wrong_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        TreesPredictor(**wrong).fit(*jumps(20))


def test_farthest_points_cover_corners() -> None:
    grid = np.stack(np.meshgrid(2.0 ** np.arange(5), 2.0 ** np.arange(5)), -1).reshape(-1, 2)
    chosen = farthest_points(grid, 5)
    assert {tuple(grid[index]) for index in chosen[1:]} == {(1, 1), (1, 16), (16, 1), (16, 16)}
    assert tuple(grid[chosen[0]]) == (4, 4)
    assert len(set(farthest_points(grid, 25).tolist())) == 25
    for count in (0, 26):
        with pytest.raises(InputError, match="cannot be chosen"):
            farthest_points(grid, count)
    with pytest.raises(InputError, match="finite"):
        farthest_points([[np.nan]], 1)
