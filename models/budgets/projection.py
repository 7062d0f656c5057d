"""The nearest widths within a budget: Euclidean projection onto {cost <= limit}.

The set is not convex where the cost has products of widths, so there can be several nearest
candidates: sequential quadratic programming (SLSQP; Kraft 1988) refines those that begin nearest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from ..base.intervals import FloatArray

# Halvings of a segment: more than a float64 has digits.
NUM_HALVINGS = 55
# Of a start, which is refined anyway.
NUM_ROUGH_HALVINGS = 12
NUM_REFINED = 4
# Of what SLSQP minimises, half the distance squared.
PRECISION = 1e-12
MAX_STEPS = 100
# Share of the limit that it aims below it, so that rounding does not end above.
MARGIN = 1e-9


@dataclass(frozen=True)
class Region:
    """The widths within a budget.

    Attributes:
        low: Lower bounds, shape (k,); these widths are within the budget.
        high: Upper bounds, shape (k,).
        scale: What distances along each width are relative to, shape (k,).
        excess: Widths (n, k) to what each cost exceeds its limit by, relative to it, (n, m).
        gradient: Widths (k,) to the gradients of that, (m, k).
    """

    low: FloatArray
    high: FloatArray
    scale: FloatArray
    excess: Callable[[FloatArray], FloatArray]
    gradient: Callable[[FloatArray], FloatArray]

    def holds(self, points: FloatArray) -> NDArray[np.bool_]:
        """Return which of the points (n, k) within the bounds meet the budget, shape (n,)."""
        holds: NDArray[np.bool_] = np.all(self.excess(points) <= 0, axis=1)
        return holds

    def distance(self, points: FloatArray, point: FloatArray) -> FloatArray:
        """Return how far points (n, k) are from one, shape (n,)."""
        distance: FloatArray = np.linalg.norm((points - point) / self.scale, axis=1)
        return distance

    def towards(
        self, inside: FloatArray, outside: FloatArray, num_halvings: int = NUM_HALVINGS
    ) -> FloatArray:
        """Return points (n, k) within the budget, as far from `inside` to `outside` as it goes."""
        near, far = np.zeros(len(inside)), np.ones(len(inside))
        near[self.holds(outside)] = 1.0
        for _ in range(num_halvings if not near.all() else 0):
            middle = (near + far) / 2
            fits = self.holds(inside + middle[:, None] * (outside - inside))
            near, far = np.where(fits, middle, near), np.where(fits, far, middle)
        points = inside + near[:, None] * (outside - inside)
        # Rounding of the product may lie on the other side of what was tried.
        return np.where(self.holds(points)[:, None], points, inside)


def project(region: Region, points: FloatArray) -> FloatArray:
    """Return the nearest points of the region, shape (n, k).

    Args:
        region: Where to.
        points: Shape (n, k), finite.
    """
    nearest = np.clip(points, region.low, region.high)
    for row in np.flatnonzero(~region.holds(nearest)):
        nearest[row] = _project(region, points[row])
    return nearest


def _project(region: Region, point: FloatArray) -> FloatArray:
    starts = _starts(region, np.clip(point, region.low, region.high))
    starts = starts[np.argsort(region.distance(starts, point), kind="stable")]
    found = np.array([_refine(region, point, start) for start in starts[:NUM_REFINED]])
    best: FloatArray = found[int(np.argmin(region.distance(found, point)))]
    return best


def _starts(region: Region, clipped: FloatArray) -> FloatArray:
    """Return points within the budget: all widths lowered alike, and one of them first."""
    count = len(clipped)
    corners = np.tile(clipped, (count + 1, 1))
    corners[np.arange(count), np.arange(count)] = region.low
    lowest = np.tile(region.low, (count + 1, 1))
    starts = region.towards(lowest, corners, NUM_ROUGH_HALVINGS)
    # Where lowering one width was enough, no more of it than needed.
    ends = np.where(region.holds(corners)[:, None], clipped, starts)
    return region.towards(starts, ends, NUM_ROUGH_HALVINGS)


def _refine(region: Region, point: FloatArray, start: FloatArray) -> FloatArray:
    """Return a point within the budget that no small step brings nearer, or the start."""
    scale = region.scale

    def distance(z: FloatArray) -> float:
        return 0.5 * float(np.sum((z - point / scale) ** 2))

    def away(z: FloatArray) -> FloatArray:
        return z - point / scale

    def left(z: FloatArray) -> FloatArray:
        room: FloatArray = -region.excess(z[None] * scale)[0] - MARGIN
        return room

    def slope(z: FloatArray) -> FloatArray:
        gradient: FloatArray = -region.gradient(z * scale) * scale
        return gradient

    constraint: Any = {"type": "ineq", "fun": left, "jac": slope}
    result = minimize(
        distance,
        start / scale,
        jac=away,
        method="SLSQP",
        bounds=list(zip(region.low / scale, region.high / scale, strict=True)),
        constraints=constraint,
        options={"ftol": PRECISION, "maxiter": MAX_STEPS},
    )
    end = np.clip(result.x * scale, region.low, region.high)
    if not np.all(np.isfinite(end)):
        return start
    end = region.towards(start[None], end[None])[0]
    before, after = region.distance(np.stack([start, end]), point)
    return end if after < before else start
