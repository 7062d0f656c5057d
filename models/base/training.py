"""What a predictor is fitted to."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...datasets import LayerProfiles
from .intervals import FloatArray

# self, X, y, weights
FORMER_PARAMETERS = 4


@dataclass(frozen=True, eq=False)
class Training:
    """Checked rows of widths and costs, and what is known about them.

    Attributes:
        X: Widths in channels, shape (n, k), finite.
        y: Cost in `unit`, shape (n,), finite.
        weights: Of squared errors, shape (n,), positive.
        unit: SI unit of the cost; '' where it was not stated.
        target: Name of the cost, such as 'energy_j'; 'cost' where it was not stated.
        has_variances: Whether the weights come from a dataset's variances, by way of the
            predictor's `weights_of`, and not from a caller.
        profiles: What layers of the same network took, in seconds; None where nothing is known.

    Example:
        >>> import numpy as np
        >>> rows = Training(np.array([[1.0], [2.0], [3.0]]), np.array([2.0, 4.0, 6.0]), np.ones(3))
        >>> rows.rows(rows.y > 3).X.tolist()
        [[2.0], [3.0]]
    """

    X: FloatArray
    y: FloatArray
    weights: FloatArray
    unit: str = ""
    target: str = "cost"
    has_variances: bool = False
    profiles: LayerProfiles | None = None

    def rows(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Training:
        """Return some of the rows, and the profiles without those of variants that are left out.

        So a fold's profiles never tell about the variants that it leaves out.

        Args:
            chosen: Which rows: a mask of shape (n,), or positions.
        """
        X = self.X[chosen]
        return replace(
            self,
            X=X,
            y=self.y[chosen],
            weights=self.weights[chosen],
            profiles=None if self.profiles is None else self._profiles_of(self.profiles, X),
        )

    def with_weights(self, weights: FloatArray) -> Training:
        """Return the same rows with other weights, shape (n,), positive."""
        return replace(self, weights=weights)

    def with_costs(self, y: FloatArray) -> Training:
        """Return the same rows with other costs, shape (n,)."""
        return replace(self, y=y)

    def _profiles_of(self, profiles: LayerProfiles, X: FloatArray) -> LayerProfiles | None:
        here, known = ({tuple(int(v) for v in row) for row in rows} for rows in (X, self.X))
        kept = tuple(
            variant
            for variant in profiles.variants
            if variant.widths in here or variant.widths not in known
        )
        return LayerProfiles(profiles.spec, kept, device=profiles.device) if kept else None


def take_training(cls: type[Any]) -> None:
    """Let a class's `fit_arrays(self, X, y, weights)`, as it was before 0.2, take a `Training`.

    Warns with DeprecationWarning where the class has such a one.

    Args:
        cls: A class of predictors.
    """
    method = vars(cls).get("fit_arrays")
    if not callable(method) or len(inspect.signature(method).parameters) != FORMER_PARAMETERS:
        return
    warnings.warn(
        f"{cls.__name__}.fit_arrays takes X, y and weights; write fit_arrays(self, training) and take "
        "training.X, training.y and training.weights. The old form goes with version 0.3",
        DeprecationWarning,
        stacklevel=4,
    )
    cls.fit_arrays = _with_arrays(method)


def _with_arrays(method: Callable[..., None]) -> Callable[..., None]:
    @wraps(method)
    def fit_arrays(self: Any, training: Training) -> None:
        method(self, training.X, training.y, training.weights)

    return fit_arrays
