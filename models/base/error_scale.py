"""What errors are measured in: where a model errs more, as far as held-out errors show it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]

# Errors grow as cost ** (1 - power): 0 is in proportion to it, 1 is the same for all.
POWERS = (0.0, -0.5, 0.5, 1.0)
# Share of the model's own spread; the rest is the same everywhere.
SPREAD_SHARES = (0.0, 0.5, 1.0)
# Log-likelihood by which anything but errors in proportion to the cost must be better; it keeps
# chance from choosing where rows are few.
LEAST_GAIN = 2.0


@dataclass(frozen=True)
class ErrorScale:
    """The typical size of an error at a predicted cost, up to a factor, in the cost's unit.

    cost * (usual_cost / cost)**power * (1 - share + share * spread / usual_spread)

    Attributes:
        power: How little errors grow with the cost.
        share: How much of the model's own spread counts, 0 to 1.
        smallest: The smallest cost that errors are taken relative to.
        usual_cost: Geometric mean of predicted costs.
        usual_spread: Geometric mean of the spread.
    """

    power: float
    share: float
    smallest: float
    usual_cost: float
    usual_spread: float

    @classmethod
    def of(
        cls,
        errors: FloatArray,
        predicted: FloatArray,
        spread: FloatArray | None,
        weights: FloatArray,
        num_distinct: int,
        smallest: float,
    ) -> Self:
        """Return the scale that makes held-out errors likeliest, of a Laplace distribution.

        Args:
            errors: Measured minus predicted, shape (n,).
            predicted: Predicted cost, shape (n,).
            spread: How unsure the model was, relative, positive, shape (n,); None if not known.
            weights: Positive, shape (n,).
            num_distinct: Number of different rows.
            smallest: The smallest cost that errors are taken relative to.
        """
        costs = np.abs(predicted).clip(min=smallest)
        means = [
            1.0 if values is None else float(np.exp(np.average(np.log(values), weights=weights)))
            for values in (costs, spread)
        ]
        if not np.any(errors):
            return cls(0.0, 0.0, smallest, *means)

        def loss(scale: Self) -> float:
            size = scale.at(predicted, spread)
            mean_error = np.average(np.abs(errors) / size, weights=weights)
            doubt = LEAST_GAIN / num_distinct if scale.power or scale.share else 0.0
            return float(np.average(np.log(size), weights=weights) + np.log(mean_error) + doubt)

        shares = (0.0,) if spread is None else SPREAD_SHARES
        return min((cls(*pair, smallest, *means) for pair in product(POWERS, shares)), key=loss)

    def at(self, cost: Any, spread: Any = None) -> Any:
        """Return the scale at predicted costs, arrays or tensors of `batch_shape`.

        Args:
            cost: Predicted cost.
            spread: How unsure the model is there; not needed where `share` is 0.
        """
        size = abs(cost).clip(min=self.smallest)
        if self.power:
            size = size * (self.usual_cost / size) ** self.power
        if self.share and spread is not None:
            size = size * (1 - self.share + self.share * spread / self.usual_spread)
        return size
