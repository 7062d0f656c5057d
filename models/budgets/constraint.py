"""One cost with its limit: what a budget is made of."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np
import torch

from joulemap import InputError

from ...datasets import NetworkSpec
from ...datasets.units import unit_named
from ..base.cost_module import CostModule
from ..base.measured_under import Difference, MeasuredUnder
from ..base.predictor import Predictor

Cost: TypeAlias = CostModule | Predictor
Limit: TypeAlias = float | np.number[Any] | str

# Share of a limit that counts as rounding.
TOLERANCE = 1e-9

_SHARE = re.compile(r"\s*([0-9.eE+-]+)\s*%\s*")
_QUANTITY = re.compile(r"\s*([0-9.eE+-]+)\s*([^\W\d]+)\s*")


@dataclass(frozen=True)
class Constraint:
    """A cost that must not exceed a limit.

    Attributes:
        cost: The exact module, which checks.
        limit: In the cost's SI unit.
        surrogate: The module whose gradient optimisers follow.
        multiples: Width name to the multiple of channels that the device likes; empty where
            nothing is known.
    """

    cost: CostModule
    limit: float
    surrogate: CostModule
    multiples: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What is limited, such as 'energy_j'."""
        return self.cost.target

    def value(
        self, widths: torch.Tensor, coverage: float | None, *, is_smooth: bool = False
    ) -> torch.Tensor:
        """Return what is compared with the limit, `batch_shape`, in the cost's unit.

        Args:
            widths: Widths in channels, `batch_shape x k`.
            coverage: None for the cost itself, a share for its upper bound.
            is_smooth: Whether to take the surrogate in place of the exact module.
        """
        module = self.surrogate if is_smooth else self.cost
        # Widths may live on another device than the cost.
        at = next((widths.to(buffer.device) for buffer in module.buffers()), widths)
        value = module(at) if coverage is None else module.upper(at, coverage)
        return value.to(widths.device)

    def text(self, value: float) -> str:
        """Return a figure of this cost with its unit, for messages."""
        return f"{value:.4g} {self.cost.unit}".rstrip()


def differences_of(constraints: Sequence[Constraint]) -> tuple[Difference, ...]:
    """Return what the costs of a budget, and their surrogates, were measured under that differs."""
    modules = [module for c in constraints for module in (c.cost, c.surrogate)]
    sides = [replace(MeasuredUnder.of_info(module.info), unit="") for module in modules]
    found = {
        str(difference): difference
        for first, second in combinations(sides, 2)
        for difference in first.differences(second)
    }
    return tuple(found.values())


def constraints_of(
    items: Any, coverage: float | None, spec: NetworkSpec | None
) -> tuple[tuple[Constraint, ...], NetworkSpec]:
    """Return the constraints that a user wrote, with limits in SI units, and their network.

    Args:
        items: (cost, limit) or (cost, limit, surrogate) each.
        coverage: As for `Constraint.value`; a limit in per cent is of that value.
        spec: The network, where the costs do not know it.

    Raises:
        InputError: None, one twice, different networks, or a limit that makes no sense.
    """
    if not isinstance(items, Sequence) or isinstance(items, str) or not len(items):
        raise InputError("a budget takes a list of (cost, limit), with one at least")
    read = [_read(item) for item in items]
    for number, item in enumerate(items):
        if any(item[0] is other[0] for other in items[:number]):
            raise InputError(f"the cost of {read[number].name} is limited twice; keep one limit")
    spec = _common_spec(read, spec)
    dense = torch.tensor(spec.max_widths, dtype=torch.float64)
    finished = []
    for constraint, item in zip(read, items, strict=True):
        with torch.no_grad():
            most = float(constraint.value(dense, coverage))
        limit = limit_in_si(item[1], constraint.cost, most)
        finished.append(replace(constraint, limit=limit))
    return tuple(finished), spec


def combined_multiples(constraints: Sequence[Constraint]) -> dict[str, int]:
    """Return for each width the least common multiple of what the predictors advise."""
    combined: dict[str, int] = {}
    for constraint in constraints:
        for name, multiple in constraint.multiples.items():
            combined[name] = math.lcm(combined.get(name, 1), multiple)
    return combined


def _common_spec(constraints: Sequence[Constraint], spec: NetworkSpec | None) -> NetworkSpec:
    """Return the network that all costs are of."""
    modules = [module for c in constraints for module in (c.cost, c.surrogate)]
    for module in modules:
        if module.spec is None:
            continue
        if spec is not None and module.spec.fingerprint != spec.fingerprint:
            raise InputError(
                f"{module.target} is a cost of {module.spec.name} with other widths or layers "
                f"than {spec.name}; a budget is about one network"
            )
        spec = module.spec
    if spec is None:
        raise InputError(
            "the costs were fitted without a network, so widths have no bounds; pass spec"
        )
    for module in modules:
        if module.width_names != spec.width_names:
            raise InputError(
                f"{module.target} is a cost of the widths {', '.join(module.width_names)}, and "
                f"{spec.name} has {', '.join(spec.width_names)}"
            )
    return spec


def _read(item: Any) -> Constraint:
    """Return what a user wrote, with a limit that is not known yet."""
    if not (isinstance(item, tuple | list) and len(item) in (2, 3)):
        raise InputError(f"a constraint is (cost, limit) or (cost, limit, surrogate), not {item!r}")
    cost, _, *rest = item
    multiples: dict[str, int] = {}
    if isinstance(cost, Predictor):
        exact, smooth = _module_of(cost), _module_of(cost, is_smooth=True)
        advise = getattr(cost, "advised_multiples", None)
        multiples = advise() if advise is not None else {}
    elif isinstance(cost, CostModule):
        exact = smooth = cost
    else:
        raise InputError(
            f"a constraint's cost is a CostModule or a fitted predictor, not {type(cost).__name__}"
        )
    for surrogate in rest:
        is_fitted = isinstance(surrogate, Predictor)
        smooth = _module_of(surrogate, is_smooth=True) if is_fitted else surrogate
        if not isinstance(smooth, CostModule):
            raise InputError(f"the surrogate of {exact.target} is no CostModule")
        if smooth.unit != exact.unit:
            raise InputError(
                f"the surrogate of {exact.target} is in '{smooth.unit}', the cost in "
                f"'{exact.unit}'; a surrogate has the unit of its cost"
            )
    return Constraint(exact, math.nan, smooth, multiples)


def _module_of(predictor: Predictor, *, is_smooth: bool = False) -> CostModule:
    """Return the module of a predictor under the conditions that it was fitted at."""
    predictor.ready()
    batch = predictor.conditions_.get("batch", 1)
    precision = predictor.conditions_.get("precision", "fp32")
    return predictor.to_torch(batch=batch, precision=precision, smooth=is_smooth)


def limit_in_si(limit: Limit, cost: CostModule, dense: float) -> float:
    """Return a limit in the cost's SI unit.

    Args:
        limit: A number in the cost's SI unit; a text with a unit, such as '5 mJ'; or a share of
            the unpruned network's cost, such as '60 %'.
        cost: What is limited.
        dense: The cost of the unpruned network.

    Raises:
        InputError: Not a finite positive number, an unknown unit, or one of another quantity.
    """
    value: Any = limit
    if isinstance(limit, str):
        if found := _SHARE.fullmatch(limit):
            value = _number(found[1], limit) / 100 * dense
        elif found := _QUANTITY.fullmatch(limit):
            unit = unit_named(found[2])
            if unit.si != cost.unit:
                given = f"in {cost.unit}" if cost.unit else "without a unit; write a number"
                raise InputError(f"limit '{limit}' is in {found[2]}, and {cost.target} is {given}")
            value = _number(found[1], limit) * unit.factor
        else:
            raise InputError(
                f"limit '{limit}' cannot be read; write a number, '5 mJ' or '60 %' of the "
                "unpruned network"
            )
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise InputError(f"the limit of {cost.target} is {limit!r}, not a number")
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"the limit of {cost.target} is {limit!r}, not a finite number above 0")
    return float(value)


def _number(text: str, limit: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"limit '{limit}' has no number that can be read") from error
