"""What a budget says of one width vector."""

from __future__ import annotations

from dataclasses import dataclass

from .constraint import TOLERANCE


@dataclass(frozen=True)
class BudgetCheck:
    """A width vector's costs beside their limits; sequences have one entry for each constraint.

    Attributes:
        width_names: Names of the k widths, in order.
        widths: Widths in channels.
        names: What is limited, such as 'energy_j'.
        units: Unit of each cost.
        costs: Exact cost.
        uppers: Upper bound of the mean at `coverage`; the cost where the budget has no coverage.
        limits: The most it may be.
        coverage: Share of variants whose mean cost lies below the upper bound, or None.
        differences: What the costs were measured under that is not the same.
    """

    width_names: tuple[str, ...]
    widths: tuple[float, ...]
    names: tuple[str, ...]
    units: tuple[str, ...]
    costs: tuple[float, ...]
    uppers: tuple[float, ...]
    limits: tuple[float, ...]
    coverage: float | None
    differences: tuple[str, ...] = ()

    @property
    def slack(self) -> tuple[float, ...]:
        """What is left of each limit below the upper bound, in the cost's unit; negative is over."""
        return tuple(limit - upper for limit, upper in zip(self.limits, self.uppers, strict=True))

    @property
    def is_met(self) -> bool:
        """Whether no upper bound exceeds its limit by more than rounding."""
        return all(
            upper <= limit * (1 + TOLERANCE)
            for limit, upper in zip(self.limits, self.uppers, strict=True)
        )

    def __str__(self) -> str:
        lines = []
        for name, unit, cost, upper, limit in zip(
            self.names, self.units, self.costs, self.uppers, self.limits, strict=True
        ):
            bound = (
                "" if self.coverage is None else f" (at most {upper:.4g} in {self.coverage:.0%})"
            )
            share = f"{upper / limit - 1:+.2%}"
            lines.append(f"{name} {cost:.4g} {unit}{bound}, limit {limit:.4g} {unit}: {share}")
        lines += [f"taken together although unlike: {each}" for each in self.differences]
        return "\n".join(lines)
