"""Budgets: limits on what a network costs, as penalties, projections and integer widths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike

from joulemap import InputError

from ...datasets import NetworkSpec
from ..base.intervals import FloatArray
from ..base.measured_under import refuse_unlike
from .allocation import (
    Allocation,
    ChannelRanking,
    Importance,
    allocate,
    candidates_of,
    smallest_of,
)
from .augmented_lagrangian import AugmentedLagrangian
from .check import BudgetCheck
from .constraint import (
    TOLERANCE,
    Constraint,
    Cost,
    Limit,
    combined_multiples,
    constraints_of,
    differences_of,
)
from .projection import Region, project
from .rounding import repair

__all__ = ["Allocation", "AugmentedLagrangian", "Budget", "BudgetCheck", "Constraint"]

Multiples: TypeAlias = Mapping[str, int] | Literal["advised"] | None

# Rows that are evaluated together: bounds memory, not results.
CHUNK = 1 << 13
MAX_LABELS = 5_000
# The smallest widths are tried as they are and rounded up to these: kernels for a single channel
# can cost more than those for a few.
FLOOR_MULTIPLES = (1, 2, 4, 8, 16, 32)


class Budget:
    """Limits on costs of one network's widths.

    The exact costs check, their surrogates give gradients. With a coverage, `CostModule.upper`
    takes the place of the cost everywhere, so the true mean stays below the limit for that share
    of variants.

    Args:
        constraints: (cost, limit) each; or (cost, limit, surrogate). A cost is a CostModule, or a
            fitted predictor: then `to_torch()` checks, `to_torch(smooth=True)` gives gradients,
            and widths are rounded as it advises. A limit is a number in the cost's SI unit, a
            text such as '5 mJ', or a share of the unpruned network's cost such as '60 %'.
        coverage: None, or between 0 and 1.
        spec: The network, where the costs do not know it.
        allow_different: Whether the costs may be of unlike conditions or of several devices; the
            budget and its checks name the differences then.

    Attributes:
        constraints: What was given, each a `Constraint`.
        differences: What the costs were measured under that is not the same.
        floor: What the smallest widths cost, one figure for each constraint.
        dense: What the unpruned network costs.

    Raises:
        InputError: No constraint, one given twice, costs of different networks, a limit in
            another unit, or one that no widths or all widths meet.
    """

    constraints: tuple[Constraint, ...]
    floor: tuple[float, ...]
    dense: tuple[float, ...]

    def __init__(
        self,
        constraints: Sequence[tuple[Cost, Limit] | tuple[Cost, Limit, Cost]],
        coverage: float | None = None,
        *,
        spec: NetworkSpec | None = None,
        allow_different: bool = False,
    ) -> None:
        if coverage is not None and not (isinstance(coverage, int | float) and 0 < coverage < 1):
            raise InputError(f"coverage is {coverage!r}; write None or a number between 0 and 1")
        self.coverage = coverage
        self.constraints, self.spec = constraints_of(constraints, coverage, spec)
        self.differences = differences_of(self.constraints)
        if not allow_different:
            refuse_unlike(self.differences, "the costs of the budget")
        self.width_names = self.constraints[0].cost.width_names
        self.low = np.array(self.spec.min_widths, dtype=np.float64)
        self.high = np.array(self.spec.max_widths, dtype=np.float64)
        smallest = np.array(
            [smallest_of(self.spec, multiple) for multiple in FLOOR_MULTIPLES], dtype=np.float64
        )
        floors, dense = self._values(smallest), self._values(self.high[None])[0]
        self.floor = tuple(floors.min(axis=0).tolist())
        self.dense = tuple(dense.tolist())
        for constraint, least, most in zip(self.constraints, self.floor, self.dense, strict=True):
            self._refuse_pointless(constraint, least, most)

    def __repr__(self) -> str:
        limits = ", ".join(f"{c.name} <= {c.text(c.limit)}" for c in self.constraints)
        coverage = "" if self.coverage is None else f", coverage={self.coverage}"
        unlike = "".join(f", unlike {each}" for each in self.differences)
        return f"Budget({self.spec.name}: {limits}{coverage}{unlike})"

    # -- checks, exact ---------------------------------------------------------------------------

    def check(self, widths: ArrayLike | torch.Tensor) -> BudgetCheck:
        """Return the costs of one width vector beside the limits.

        Args:
            widths: Widths in channels, shape (k,).

        Raises:
            InputError: Not one vector of k finite numbers.
        """
        row = self._rows(widths)
        if len(row) != 1:
            raise InputError(f"check takes one width vector, not {len(row)}; write is_met for many")
        point = torch.from_numpy(row[0])
        with torch.no_grad():
            costs = [float(c.value(point, None)) for c in self.constraints]
            uppers = [float(c.value(point, self.coverage)) for c in self.constraints]
        return BudgetCheck(
            width_names=self.width_names,
            widths=tuple(row[0].tolist()),
            names=tuple(c.name for c in self.constraints),
            units=tuple(c.cost.unit for c in self.constraints),
            costs=tuple(costs),
            uppers=tuple(uppers),
            limits=tuple(c.limit for c in self.constraints),
            coverage=self.coverage,
            differences=tuple(map(str, self.differences)),
        )

    def is_met(self, widths: torch.Tensor) -> torch.Tensor:
        """Return whether the exact costs lie within all limits, bool, `batch_shape`.

        Args:
            widths: Widths in channels, `batch_shape x k`.
        """
        rows = self._rows(widths)
        met = np.all(self._relative(rows) <= 1 + TOLERANCE, axis=1)
        return torch.from_numpy(met).reshape(widths.shape[:-1])

    # -- for optimisers, smooth ------------------------------------------------------------------

    def excess(self, widths: torch.Tensor) -> torch.Tensor:
        """Return surrogate / limit - 1 for each constraint, `batch_shape x m`; negative within.

        Args:
            widths: Widths in channels, `batch_shape x k`.
        """
        return torch.stack(
            [
                c.value(widths, self.coverage, is_smooth=True) / c.limit - 1
                for c in self.constraints
            ],
            dim=-1,
        )

    def penalty(self, widths: torch.Tensor, power: float = 1.0) -> torch.Tensor:
        """Return sum_c max(0, surrogate_c / limit_c - 1)^power, `batch_shape`; 0 within the budget.

        Args:
            widths: Widths in channels, `batch_shape x k`.
            power: 1 for a penalty that is exact at a finite weight, 2 for a smooth one.
        """
        return (torch.relu(self.excess(widths)) ** power).sum(-1)

    def augmented_lagrangian(self, **options: float) -> AugmentedLagrangian:
        """Return the term to add to a task's loss, with multipliers of its own.

        Args:
            **options: See `AugmentedLagrangian`.
        """
        return AugmentedLagrangian(self, **options)

    @torch.no_grad()
    def project(self, widths: torch.Tensor, *, is_relative: bool = False) -> torch.Tensor:
        """Return the nearest widths within bounds and budget, of the same shape and type.

        By the surrogate; widths within both are returned unchanged. No gradient flows through it.
        Without products of widths in the cost it is the nearest point for sure, else the best of
        several local ones.

        Args:
            widths: Relaxed widths in channels, `batch_shape x k`.
            is_relative: Whether near means in shares of each largest width, in place of channels;
                channels of narrow, expensive layers then go less readily.

        Raises:
            InputError: NaN, a wrong last dimension, or a surrogate above its limit at the
                smallest widths.
        """
        least = self._excess_rows(self.low[None])[0]
        for constraint, excess in zip(self.constraints, least, strict=True):
            if excess > 0:
                cost = constraint.text((1 + excess) * constraint.limit)
                raise InputError(
                    f"the surrogate of {constraint.name} is {cost} at the smallest widths, above "
                    f"the limit of {constraint.text(constraint.limit)}; there is nothing to "
                    "project onto"
                )
        rows = self._rows(widths)
        nearest = torch.from_numpy(
            project(self._region(widths.dtype, is_relative=is_relative), rows)
        )
        return nearest.reshape(widths.shape).to(widths)

    # -- integer widths --------------------------------------------------------------------------

    def allocate(
        self, importance: Importance, *, multiples: Multiples = None, max_labels: int = MAX_LABELS
    ) -> Allocation:
        """Return the integer widths that keep the largest importance within the budget.

        Each width keeps its most important channels; the importance of kept channels adds up.
        Exact for costs that are sums over pairs of widths, unless more than `max_labels` partial
        solutions are alike; the result says how far it can be off.

        Args:
            importance: For each width one number per channel of the unpruned network, by width
                name or in the network's order.
            multiples: Width name to the multiple of channels it must be, 'advised' for what the
                predictors advise; None for any within the network's own steps.
            max_labels: Partial solutions that are kept; more is slower and proves more.

        Raises:
            InputError: NaN, wrong numbers of channels, unknown widths; or no widths in these
                multiples are known to meet the budget.
        """
        ranking = ChannelRanking(self.spec, importance)
        candidates = candidates_of(self.spec, self.multiples(multiples))
        values = [
            kept[grid.astype(np.int64)] for kept, grid in zip(ranking.kept, candidates, strict=True)
        ]
        numbers = range(len(self.constraints))
        widths, bound, is_proven = allocate(
            [self._relative_of(number) for number in numbers],
            candidates,
            values,
            max_labels,
            [self._relative_of(number, is_plain=True) for number in numbers]
            if self.coverage is not None
            else None,
        )
        if widths is None:
            limits = ", ".join(f"{c.name} <= {c.text(c.limit)}" for c in self.constraints)
            raise InputError(
                f"no widths of {self.spec.name} that meet {limits} were found in these multiples"
            )
        chosen = [int(width) for width in widths]
        kept = sum(float(sums[width]) for sums, width in zip(ranking.kept, chosen, strict=True))
        return Allocation(
            check=self.check(chosen),
            channels=ranking.channels(chosen),
            importance=kept,
            total_importance=sum(float(sums[-1]) for sums in ranking.kept),
            bound=max(bound, kept),
            is_proven=is_proven,
        )

    def round_to_liked(
        self, widths: ArrayLike | torch.Tensor, multiples: Multiples = "advised"
    ) -> BudgetCheck:
        """Return integer widths near the given ones that the device likes and the budget allows.

        Up to the next multiple; where that breaks the budget, single widths go down again by
        multiples, those first that save most for how far they move, in relative terms.

        Args:
            widths: Relaxed widths in channels, shape (k,).
            multiples: As for `allocate`.

        Raises:
            InputError: NaN, not one vector, or no widths in these multiples meet the budget.
        """
        row = self._rows(widths)
        if len(row) != 1:
            raise InputError(f"round_to_liked takes one width vector, not {len(row)}")
        candidates = candidates_of(self.spec, self.multiples(multiples))
        rounded = repair(self._relative, candidates, row[0])
        if rounded is None:
            limits = ", ".join(f"{c.name} <= {c.text(c.limit)}" for c in self.constraints)
            raise InputError(
                f"rounded to these multiples, no smaller widths of {self.spec.name} meet {limits}"
            )
        return self.check(rounded)

    def multiples(self, multiples: Multiples = "advised") -> dict[str, int]:
        """Return the multiple of channels for each width, where one is wanted.

        Args:
            multiples: 'advised' for the least common multiple of what the predictors advise.

        Raises:
            InputError: Neither a mapping, 'advised' nor None.
        """
        if multiples is None:
            return {}
        if isinstance(multiples, Mapping):
            return dict(multiples)
        if multiples != "advised":
            raise InputError(f"multiples is {multiples!r}; write 'advised', None or a mapping")
        return combined_multiples(self.constraints)

    # -- inside ----------------------------------------------------------------------------------

    def _refuse_pointless(self, constraint: Constraint, least: float, most: float) -> None:
        name, network = constraint.name, self.spec.name
        what = "cost" if self.coverage is None else f"bound at coverage {self.coverage:g}"
        limit = constraint.text(constraint.limit)
        if not (np.isfinite(least) and np.isfinite(most)):
            raise InputError(f"the {what} of {network} is not finite: {name} {least} to {most}")
        if constraint.limit * (1 + TOLERANCE) < least:
            raise InputError(
                f"the limit of {name} is {limit}, and the {what} of the smallest widths of "
                f"{network} is {constraint.text(least)}; no widths can meet it"
            )
        if constraint.limit > most * (1 + TOLERANCE):
            raise InputError(
                f"the limit of {name} is {limit}, and the {what} of the unpruned {network} is "
                f"{constraint.text(most)}; it limits nothing"
            )

    def _rows(self, widths: Any) -> FloatArray:
        """Return widths as rows, float64 of shape (n, k), checked."""
        if isinstance(widths, torch.Tensor):
            widths = widths.detach().cpu().numpy()
        try:
            array = np.asarray(widths, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"widths are no array of numbers: {error}") from error
        if array.ndim == 0 or array.shape[-1] != len(self.width_names):
            raise InputError(
                f"widths have shape {array.shape}; the last dimension must be "
                f"{len(self.width_names)} ({', '.join(self.width_names)})"
            )
        if not np.all(np.isfinite(array)):
            raise InputError("the widths contain NaN or infinity")
        return np.array(array.reshape(-1, array.shape[-1]))

    def _values(self, rows: FloatArray) -> FloatArray:
        """Return what is compared with the limits, shape (n, m)."""
        return np.column_stack(
            [self._relative_of(i)(rows) * c.limit for i, c in enumerate(self.constraints)]
        )

    def _relative(self, rows: FloatArray) -> FloatArray:
        """Return the exact costs (or bounds) relative to their limits, shape (n, m)."""
        return np.column_stack([self._relative_of(i)(rows) for i in range(len(self.constraints))])

    def _relative_of(
        self, number: int, *, is_plain: bool = False
    ) -> Callable[[FloatArray], FloatArray]:
        """Return the function of one constraint; plain is the cost where its bound counts."""
        constraint = self.constraints[number]
        coverage = None if is_plain else self.coverage

        def relative(rows: FloatArray) -> FloatArray:
            parts = []
            with torch.no_grad():
                for start in range(0, len(rows), CHUNK):
                    chunk = torch.from_numpy(np.ascontiguousarray(rows[start : start + CHUNK]))
                    parts.append(constraint.value(chunk, coverage).numpy())
            costs: FloatArray = np.concatenate(parts) / constraint.limit
            return costs

        return relative

    def _excess_rows(self, rows: FloatArray) -> FloatArray:
        with torch.no_grad():
            excess: FloatArray = self.excess(torch.from_numpy(rows)).numpy()
        return excess

    def _region(self, dtype: torch.dtype, *, is_relative: bool) -> Region:
        # A narrower type rounds the result: a hair within, so that it still fits.
        slack = 0.0 if dtype == torch.float64 else 4 * float(torch.finfo(dtype).eps)

        def excess(rows: FloatArray) -> FloatArray:
            return self._excess_rows(rows) + slack

        def gradient(row: FloatArray) -> FloatArray:
            point = torch.from_numpy(row).requires_grad_()
            with torch.enable_grad():
                values = self.excess(point)
                rows = [torch.autograd.grad(value, point, retain_graph=True)[0] for value in values]
            return torch.stack(rows).numpy()

        scale = self.high if is_relative else np.full_like(self.high, self.high.max())
        return Region(self.low, self.high, scale, excess, gradient)
