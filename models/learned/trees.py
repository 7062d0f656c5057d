"""Boosted regression trees: a baseline that is accurate and has no gradient."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.ensemble import GradientBoostingRegressor

from joulemap import InputError

from ...datasets import NetworkSpec
from ..base.cost_module import CostModule
from ..base.files.findings import Findings
from ..base.intervals import FloatArray
from ..base.polynomial import network_quantity
from ..base.predictor import Predictor
from ..base.repeated_rows import merge_repeated
from ..base.training import Training
from ..linear.predictor import relative_weights

QUANTITIES = ("macs", "params")
LEAST_LEAF = 3


class TreesPredictor(Predictor):
    """The cost from gradient-boosted regression trees on its logarithm.

    With a spec the trees also see the multiply-accumulates and parameters of the network. A sum of
    steps has no gradient, so there is no torch module.

    Source: Friedman, "Stochastic gradient boosting", 2002, as scikit-learn has it.

    Args:
        spec: The network; None takes the columns of X as they are.
        trees: Number of trees.
        depth: Largest depth of a tree.
        learning_rate: What each tree counts.
    """

    state_names: ClassVar[tuple[str, ...]] = ("nodes_", "roots_", "center_")

    nodes_: FloatArray
    roots_: FloatArray
    center_: float
    is_log_: bool

    def __init__(
        self,
        spec: NetworkSpec | None = None,
        *,
        trees: int = 400,
        depth: int = 5,
        learning_rate: float = 0.05,
    ) -> None:
        super().__init__(spec)
        self.trees = trees
        self.depth = depth
        self.learning_rate = learning_rate

    def weights_of(self, y: FloatArray, weights: FloatArray) -> FloatArray:
        """Return weights of squared relative errors from those of squared absolute ones."""
        return relative_weights(y, weights)

    def fit_arrays(self, training: Training) -> None:
        """Grow the trees."""
        X, y, weights = training.X, training.y, training.weights
        is_log = bool(np.all(y > 0))
        X, z, weights = merge_repeated(X, np.log(y) if is_log else y, weights)
        center = float(np.average(z, weights=weights))
        model = GradientBoostingRegressor(
            n_estimators=self.trees,
            max_depth=self.depth,
            learning_rate=self.learning_rate,
            min_samples_leaf=min(LEAST_LEAF, max(1, len(z) // 10)),
            subsample=0.5 if len(z) >= 40 else 1.0,
            init="zero",
            random_state=0,
        )
        model.fit(self._features(X), z - center, sample_weight=weights)
        tables, roots, begin = [], [], 0
        for estimator in model.estimators_[:, 0]:
            tree = estimator.tree_
            roots.append(begin)
            table = np.column_stack(
                [
                    np.where(tree.children_left < 0, -1, tree.children_left + begin),
                    np.where(tree.children_right < 0, -1, tree.children_right + begin),
                    np.where(tree.children_left < 0, 0, tree.feature),
                    tree.threshold,
                    tree.value[:, 0, 0] * self.learning_rate,
                ]
            )
            tables.append(table)
            begin += len(table)
        self.nodes_, self.roots_ = np.vstack(tables), np.array(roots, dtype=np.float64)
        self.center_, self.is_log_ = center, is_log

    def predict_arrays(self, X: FloatArray) -> FloatArray:
        """Return the cost, shape (n,), of checked columns (n, m)."""
        # Thresholds were found on 32-bit features.
        features = self._features(X).astype(np.float32).astype(np.float64)
        left, right, column = (self.nodes_[:, i].astype(np.int64) for i in range(3))
        threshold, value = self.nodes_[:, 3], self.nodes_[:, 4]
        rows = np.arange(len(X))
        total = np.full(len(X), self.center_)
        for root in self.roots_.astype(np.int64):
            at = np.full(len(X), root)
            while np.any(inside := left[at] >= 0):
                goes_left = features[rows, column[at]] <= threshold[at]
                at = np.where(inside, np.where(goes_left, left[at], right[at]), at)
            total += value[at]
        return np.exp(total) if self.is_log_ else total

    def exact_module(self) -> CostModule:
        """Refuse: steps have no gradient.

        Raises:
            InputError: Always.
        """
        raise InputError(
            "boosted trees are steps and have no gradient; fit model 'gp' or 'aligned' for a torch "
            "module"
        )

    def check_parameters(self) -> None:
        """Check the hyperparameters.

        Raises:
            InputError: One of them is not usable.
        """
        for name in ("trees", "depth"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}, not a number of at least 1")
        if not 0 < self.learning_rate <= 1:
            raise InputError(f"learning_rate is {self.learning_rate!r}, not in 0 to 1")

    def findings(self) -> dict[str, Any]:
        """Return whether the trees add up to logarithms."""
        return {"is_log": self.is_log_}

    def take_findings(self, found: Findings) -> None:
        """Set whether the trees add up to logarithms."""
        self.is_log_ = found.flag("is_log")

    def former_findings(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Return the findings of a file before version 2: an array held them."""
        center, is_log = arrays.pop("outcome_")
        arrays["center_"] = np.array(center)
        return {"is_log": bool(is_log)}

    def check_state(self) -> None:
        """Check the arrays that came from a file: children come after their parents.

        Raises:
            InputError: They are not trees.
        """
        nodes, count = self.nodes_, len(self.nodes_) if np.ndim(self.nodes_) == 2 else 0
        num_features = self._features(np.ones((1, self.n_features_in_))).shape[1]
        if count == 0 or nodes.shape[1] != 5 or np.shape(self.center_) != ():
            raise InputError("nodes_ is not a table of trees")
        whole = nodes[:, :3]
        index = np.arange(count)[:, None]
        children, is_leaf = whole[:, :2], whole[:, :1] < 0
        inside = (children > index) & (children < count)
        if (
            np.any(whole != np.round(whole))
            or np.any(~np.where(is_leaf, children == -1, inside))
            or np.any((whole[:, 2] < 0) | (whole[:, 2] >= num_features))
        ):
            raise InputError("nodes_ has children or features that do not exist")
        roots = self.roots_
        if np.ndim(roots) != 1 or np.any(
            (roots < 0) | (roots >= count) | (roots != np.round(roots))
        ):
            raise InputError("roots_ are not nodes")

    def _features(self, X: FloatArray) -> FloatArray:
        if self.spec is None:
            return X
        columns = dict(zip(self.spec.width_names, X.T, strict=True))
        more = [network_quantity(self.spec, name).at(columns) for name in QUANTITIES]
        return np.column_stack([X, *(np.broadcast_to(values, len(X)) for values in more)])
