"""When a smooth module is too far from the exact one to be trusted without a word."""

from __future__ import annotations

import warnings

from .cost_module import CostModule

# A surrogate that is farther off than this would be nearer if it said 0 everywhere.
FAR_OFF = 1.0


class SurrogateWarning(UserWarning):
    """The smooth module lies far from the exact one at some integer widths."""


def warn_far_off(module: CostModule, stacklevel: int) -> None:
    """Warn where a smooth module deviates from the exact one by more than the whole cost.

    Args:
        module: The smooth module, its `max_deviation` known.
        stacklevel: As for `warnings.warn`, seen from the caller.
    """
    if module.max_deviation > FAR_OFF:
        warnings.warn(
            f"the smooth module of {module.target} is off by up to {module.max_deviation:.0%} of the "
            "exact cost at integer widths. Check costs and budgets with the exact module, "
            "to_torch(); for a smooth one, fit a model with fewer steps: divisor=1 and block=1 for "
            "'aligned', or 'bilinear'",
            SurrogateWarning,
            stacklevel=stacklevel + 1,
        )
