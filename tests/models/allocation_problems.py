"""Small problems of allocation at every magnitude, solved by looking at every width vector."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.datasets import LayerSpec, NetworkSpec, Width
from joulemap.models import Budget, CostModule
from joulemap.models.base.cost_module import CostInfo
from joulemap.models.base.intervals import FloatArray

# What counts as rounding: of a limit, and of importance.
ROUNDING = 1e-9
TIE = 1e-11


class SumOfPairs(CostModule):
    """constant + sum_i a_i w_i + sum_ij b_ij w_i w_j, in blocks of some channels."""

    single: torch.Tensor
    pair: torch.Tensor

    def __init__(self, info: CostInfo, single: FloatArray, pair: FloatArray, block: int) -> None:
        super().__init__(info)
        self.register_buffer("single", torch.tensor(single))
        self.register_buffer("pair", torch.tensor(pair))
        self.block = block

    def cost(self, widths: torch.Tensor) -> torch.Tensor:
        blocks = torch.ceil(widths / self.block) * self.block
        products = torch.einsum("...i,ij,...j->...", blocks, self.pair, blocks)
        total: torch.Tensor = self.single[0] + blocks @ self.single[1:] + products
        return total


@dataclass(frozen=True)
class Problem:
    """A budget, what channels are worth, and how many partial solutions are kept."""

    spec: NetworkSpec
    costs: tuple[SumOfPairs, ...]
    limits: tuple[float, ...]
    importance: tuple[FloatArray, ...]
    max_labels: int

    def flaw(self) -> str | None:
        """Return what `allocate` says that is not so; None where all holds."""
        ranges = [range(w.min, w.max + 1, w.multiple) for w in self.spec.widths]
        X = np.array(list(itertools.product(*ranges)), dtype=np.float64)
        with torch.no_grad():
            relative = np.column_stack(
                [
                    c(torch.tensor(X)).numpy() / n
                    for c, n in zip(self.costs, self.limits, strict=True)
                ]
            ).max(axis=1)
        worth = np.zeros(len(X))
        for column, values in zip(X.T, self.importance, strict=True):
            worth += np.concatenate([[0.0], np.cumsum(-np.sort(-values))])[column.astype(int)]
        scale = sum(float(np.abs(values).sum()) for values in self.importance)
        surely, perhaps = relative <= 1, relative <= 1 + 2 * ROUNDING
        try:
            budget = Budget(list(zip(self.costs, self.limits, strict=True)))
            result = budget.allocate(self.importance, max_labels=self.max_labels)
        except InputError as error:
            if "limits nothing" in str(error) or not surely.any():
                return None
            return f"refused, and {int(surely.sum())} width vectors are within the limits: {error}"
        found = int(np.flatnonzero(np.all(np.equal(X, result.widths), axis=1))[0])
        if not perhaps[found]:
            return f"{result.widths} costs {relative[found]} times the limit"
        if abs(worth[found] - result.importance) > TIE * scale:
            return f"importance {result.importance}, and it is {worth[found]}"
        best = float(worth[surely].max(initial=-np.inf))
        if result.is_proven and best > result.bound + TIE * scale:
            return f"bound {result.bound}, and {best} is within the limits"
        if result.is_optimal and best > result.importance + TIE * scale:
            return f"optimal at {result.importance}, and {best} is within the limits"
        return None


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Return problems of one to four widths, at most 80,000 vectors, with ties and extremes."""
    most = draw(
        st.sampled_from([(3000,), (2, 40_000), (60, 60), (1, 1, 500), (14, 14, 14), (8, 1, 8, 8)])
    )
    widths = []
    for number, bound in enumerate(most):
        multiple = draw(st.sampled_from([1, 1, 1, 2, 3])) if bound > 8 else 1
        high = max(1, draw(st.integers(1, bound)) // multiple) * multiple
        low = draw(st.sampled_from([multiple, high]))
        widths.append(Width(f"w{number}", high, low, multiple))
    names = [width.name for width in widths]
    layers = tuple(
        LayerSpec(f"fc{i}", "linear", a, b)
        for i, (a, b) in enumerate(itertools.pairwise(["3", *names, "10"]))
    )
    spec = NetworkSpec("chain", "zoo:chain", (3,), tuple(widths), layers)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    largest = np.array(spec.max_widths, dtype=np.float64)
    costs, limits = [], []
    for _ in range(draw(st.integers(1, 2))):
        scale = 10.0 ** draw(st.sampled_from([-300, -12, -3, 0, 12, 290]))
        kind = draw(st.sampled_from(["random", "equal", "cubes", "all pairs"]))
        single = rng.random(1 + len(names)) * np.concatenate([[0.1], 1 / largest])
        pair = np.triu(rng.random((len(names), len(names))), 1) / np.outer(largest, largest)
        if kind != "all pairs":
            pair *= np.eye(len(names), k=1)
        if kind == "equal":
            single, pair = np.full_like(single, 1.0), pair * 0
        if kind == "cubes":
            single = single**3
        info = CostInfo(spec.width_names, spec, "J", "energy_j")
        block = draw(st.sampled_from([1, 1, 4]))
        cost = SumOfPairs(info, scale * single, scale * pair, block)
        costs.append(cost)
        ends = torch.tensor([spec.min_widths, spec.max_widths], dtype=torch.float64)
        least, dense = (float(value) for value in cost(ends))
        at = draw(st.sampled_from(["share", "vector", "floor", "dense"]))
        limit = least + draw(st.floats(0, 1)) ** 3 * (dense - least)
        if at == "vector":
            row = [
                rng.integers(w.min // w.multiple, w.max // w.multiple + 1) * w.multiple
                for w in widths
            ]
            limit = float(cost(torch.tensor(np.array(row, dtype=np.float64))))
        limits.append({"floor": least, "dense": dense}.get(at, limit))
    magnitude = 10.0 ** draw(st.sampled_from([-300, -12, 0, 0, 12, 290]))
    kind = draw(st.sampled_from(["random", "equal", "skewed", "signed"]))
    importance = []
    for width in widths:
        values = {
            "random": rng.random(width.max),
            "equal": np.ones(width.max),
            "skewed": rng.gamma(0.1, size=width.max),
            "signed": rng.normal(size=width.max),
        }[kind]
        importance.append(magnitude * values)
    max_labels = draw(st.sampled_from([1, 20, 5000, 5000]))
    return Problem(spec, tuple(costs), tuple(limits), tuple(importance), max_labels)
