import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from joulemap import InputError
from joulemap.datasets import LayerSpec, NetworkSpec, Width
from joulemap.models import (
    AlignedBilinearPredictor,
    BilinearPredictor,
    Budget,
    CostModule,
    FlopsPredictor,
    GaussianProcessPredictor,
    SystolicArrayModel,
    TreesPredictor,
)
from joulemap.models.base.cost_module import CostInfo
from joulemap.models.base.intervals import FloatArray
from joulemap.models.base.polynomial import Polynomial, PolynomialCostModule
from joulemap.models.testing import ArrayDataset, draw_widths
from joulemap.profiler import networks

from ..allocation_problems import Problem, problems


def chain(bounds: Sequence[Width]) -> NetworkSpec:
    names = [width.name for width in bounds]
    pairs = itertools.pairwise(["3", *names, "10"])
    layers = tuple(LayerSpec(f"fc{i}", "linear", a, b) for i, (a, b) in enumerate(pairs))
    return NetworkSpec("chain", "zoo:chain", (3,), tuple(bounds), layers)


SMALL = chain([Width("a", 9), Width("b", 8, 2, 2), Width("c", 7, 3), Width("d", 6)])


def bilinear(seed: int = 0, spec: NetworkSpec = SMALL, unit: str = "J") -> BilinearPredictor:
    rng = np.random.default_rng(seed)
    coefficients = rng.random(len(spec.widths) + 1)
    target = {"J": "energy_j", "s": "latency_s"}[unit]
    return BilinearPredictor.from_coefficients(spec, coefficients, 0.1, unit=unit, target=target)


def importances(spec: NetworkSpec, seed: int = 0) -> dict[str, FloatArray]:
    rng = np.random.default_rng(seed)
    return {width.name: rng.gamma(0.5, size=width.max) for width in spec.widths}


def every_vector(spec: NetworkSpec) -> FloatArray:
    ranges = [range(w.min, w.max + 1, w.multiple) for w in spec.widths]
    return np.array(list(itertools.product(*ranges)), dtype=np.float64)


def kept(spec: NetworkSpec, importance: Mapping[str, FloatArray], X: FloatArray) -> FloatArray:
    """The importance that width vectors keep, without the code under test."""
    total = np.zeros(len(X))
    for column, name in zip(X.T, spec.width_names, strict=True):
        largest_first = np.sort(importance[name])[::-1]
        total += [largest_first[: int(width)].sum() for width in column]
    return total


class Curved(CostModule):
    """A cost in which all widths interact, and that no sum of pairs equals."""

    def cost(self, widths: torch.Tensor) -> torch.Tensor:
        return (1 + widths.sum(-1) / 10) ** 1.7


def curved(spec: NetworkSpec = SMALL) -> Curved:
    return Curved(CostInfo(spec.width_names, spec, "J", "energy_j"))


# -- what a budget accepts -------------------------------------------------------------------------


def test_limits_are_numbers_texts_with_units_and_shares() -> None:
    energy, latency = bilinear(), bilinear(1, unit="s")
    dense = float(energy.predict([SMALL.max_widths])[0])
    budget = Budget([(energy, "40 %"), (latency, "900 ms")])
    assert [c.limit for c in budget.constraints] == pytest.approx([0.4 * dense, 0.9])
    assert budget.dense[0] == pytest.approx(dense)
    assert budget.floor[1] == pytest.approx(float(latency.predict([SMALL.min_widths])[0]))


def test_a_limit_below_the_floor_or_above_the_dense_cost_names_both_figures() -> None:
    energy = bilinear()
    low, high = energy.predict([SMALL.min_widths, SMALL.max_widths])
    with pytest.raises(InputError, match=rf"0\.001 J.* {low:.4g} J; no widths can meet it"):
        Budget([(energy, "1 mJ")])
    with pytest.raises(InputError, match=rf"99 J.* {high:.4g} J; it limits nothing"):
        Budget([(energy, 99)])
    Budget([(energy, "100 %")])
    Budget([(energy, np.float32(0.5 * high))])


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("5 ms", "'5 ms' is in ms, and energy_j is in J"),
        ("5 parsec", "unknown unit 'parsec'"),
        ("much", "cannot be read"),
        ("1e5e5 J", "no number"),
        (float("nan"), "not a finite number above 0"),
        (-1.0, "not a finite number above 0"),
        (True, "not a number"),
        (None, "not a number"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limit: float | str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Budget([(bilinear(), limit)])


def test_costs_that_do_not_belong_together_are_refused() -> None:
    energy = bilinear()
    with pytest.raises(InputError, match="one at least"):
        Budget([])
    with pytest.raises(InputError, match="energy_j is limited twice"):
        Budget([(energy, 0.5), (energy, 0.6)])
    other = bilinear(spec=chain([Width("a", 9), Width("b", 8), Width("c", 7), Width("d", 5)]))
    with pytest.raises(InputError, match="a cost of chain with other widths or layers"):
        Budget([(energy, 0.5), (other, 0.5)])
    with pytest.raises(InputError, match="a CostModule or a fitted predictor, not str"):
        Budget([("energy", 0.5)])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"\(cost, limit\)"):
        Budget([energy])
    with pytest.raises(InputError, match="surrogate has the unit of its cost"):
        Budget([(energy, 0.5, bilinear(unit="s"))])
    with pytest.raises(InputError, match="coverage is 90"):
        Budget([(energy, 0.5)], coverage=90)
    with pytest.raises(InputError, match="has no upper bound"):
        Budget([(energy, 0.5)], coverage=0.9)
    X = draw_widths(SMALL, 12)
    trees = TreesPredictor(SMALL, trees=5).fit(X, energy.predict(X))
    with pytest.raises(InputError, match="gradient"):
        Budget([(trees, "50 %")])


def test_costs_without_a_network_need_one() -> None:
    X = draw_widths(SMALL, 40)
    predictor = BilinearPredictor().fit(X, bilinear().predict(X))
    with pytest.raises(InputError, match="pass spec"):
        Budget([(predictor, 0.5)])
    with pytest.raises(InputError, match="cost of the widths x0, x1, x2, x3"):
        Budget([(predictor, 0.5)], spec=SMALL)


def test_a_budget_with_coverage_checks_the_upper_bound(dataset: ArrayDataset) -> None:
    predictor = BilinearPredictor().fit_dataset(dataset, "energy_j")
    plain = Budget([(predictor, "50 %")])
    careful = Budget([(predictor, plain.constraints[0].limit)], coverage=0.95)
    importance = importances(dataset.spec)
    steps = dict.fromkeys(dataset.width_names, 8)
    widths = careful.allocate(importance, multiples=steps).widths
    check = careful.check(widths)
    point = torch.tensor(widths, dtype=torch.float64)
    assert check.uppers[0] == pytest.approx(float(predictor.to_torch().upper(point, 0.95)))
    assert check.costs[0] < check.uppers[0] <= check.limits[0]
    assert check.slack[0] == check.limits[0] - check.uppers[0]
    assert not careful.check(plain.allocate(importance, multiples=steps).widths).is_met


def test_checks_are_exact_and_gradients_smooth() -> None:
    model = SystolicArrayModel(networks.get("lenet5"), "tpu")
    budget = Budget([(model, "50 %")])
    widths = torch.tensor([5.5, 13.0, 77.0, 50.0], dtype=torch.float64)
    limit = budget.constraints[0].limit
    smooth = model.to_torch(smooth=True)(widths).item()
    assert budget.excess(widths).tolist() == pytest.approx([smooth / limit - 1])
    assert budget.check(widths).costs[0] == pytest.approx(model.to_torch()(widths).item())


# -- in a training loop ----------------------------------------------------------------------------


def test_the_penalty_is_relative_differentiable_batched_and_zero_within() -> None:
    energy, latency = bilinear(), bilinear(1, unit="s")
    budget = Budget([(energy, "50 %"), (latency, "40 %")])
    low, high = (torch.tensor(w, dtype=torch.float64) for w in (SMALL.min_widths, SMALL.max_widths))
    batch = torch.stack([low, high]).reshape(1, 2, -1).requires_grad_()
    penalty = budget.penalty(batch)
    assert penalty.shape == (1, 2)
    assert penalty[0].tolist() == pytest.approx([0, 1 / 0.5 - 1 + 1 / 0.4 - 1])
    assert budget.penalty(batch, power=2)[0, 1].item() == pytest.approx(1 + 1.5**2)
    (gradient,) = torch.autograd.grad(penalty.sum(), batch)
    assert not gradient[0, 0].any()
    assert (gradient[0, 1] > 0).all()
    assert budget.is_met(batch).tolist() == [[True, False]]


def test_the_augmented_lagrangian_ends_at_the_constrained_optimum() -> None:
    budget = Budget([(bilinear(), "50 %"), (bilinear(1, unit="s"), "60 %")])
    high = torch.tensor(SMALL.max_widths, dtype=torch.float64)
    term = budget.augmented_lagrangian(penalty=1.0)
    widths = high.clone().requires_grad_()

    def task(at: torch.Tensor) -> torch.Tensor:
        return (high / at).log().sum()

    for _ in range(20):
        optimiser = torch.optim.LBFGS([widths], max_iter=20, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            optimiser.zero_grad()  # noqa: B023 - used within this turn of the loop
            loss: torch.Tensor = task(widths) + term(widths)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimiser.step(closure)  # type: ignore[no-untyped-call]
        term.update(widths)
    # The conditions of Karush, Kuhn and Tucker.
    excess = budget.excess(widths)
    assert (excess <= 1e-5).all()
    assert (term.multipliers * excess).abs().max() < 1e-4
    assert term.multipliers.max() > 0.1
    lagrangian = task(widths) + (term.multipliers * excess).sum()
    (gradient,) = torch.autograd.grad(lagrangian, widths)
    assert gradient.abs().max() < 1e-3

    again = budget.augmented_lagrangian()
    again.load_state_dict(term.state_dict())
    assert torch.equal(again(widths), term(widths))
    with pytest.raises(InputError, match="NaN"):
        term.update(torch.full((4,), torch.nan))
    with pytest.raises(InputError, match="penalty is 0"):
        budget.augmented_lagrangian(penalty=0)


# -- projection ------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.integers(35, 95), is_relative=st.booleans())
def test_projection_gives_the_nearest_feasible_point(
    seed: int, share: int, is_relative: bool
) -> None:
    rng = np.random.default_rng(seed)
    budget = Budget([(bilinear(seed), f"{share} %"), (bilinear(seed + 1, unit="s"), "80 %")])
    spread = (budget.high - budget.low) * 0.5
    points = rng.uniform(budget.low - spread, budget.high + spread, (3, 4))
    scale = budget.high if is_relative else 1.0
    projected = budget.project(torch.tensor(points), is_relative=is_relative)
    near = projected.numpy()
    assert np.all((near >= budget.low) & (near <= budget.high))
    assert (budget.excess(projected) <= 0).all()
    assert torch.equal(budget.project(projected, is_relative=is_relative), projected)
    inside = rng.uniform(budget.low, budget.high, (4000, 4))
    inside = np.vstack([inside, near[0] + 0.3 * rng.standard_normal((4000, 4))])
    inside = np.clip(inside, budget.low, budget.high)
    inside = inside[(budget.excess(torch.tensor(inside)) <= 0).all(-1).numpy()]
    for point, nearest in zip(points, near, strict=True):
        best = np.linalg.norm((inside - point) / scale, axis=1).min()
        assert np.linalg.norm((nearest - point) / scale) <= best * (1 + 1e-6)
    single = budget.project(torch.tensor(points, dtype=torch.float32))
    assert single.dtype == torch.float32
    assert (budget.excess(single.double()) <= 0).all()


def test_projection_of_a_batch_is_that_of_its_rows_and_keeps_its_shape() -> None:
    budget = Budget([(curved(), "50 %")])
    batch = torch.rand(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 9
    projected = budget.project(batch)
    assert projected.shape == batch.shape
    for row, alone in zip(batch.reshape(-1, 4), projected.reshape(-1, 4), strict=True):
        assert torch.equal(budget.project(row), alone)
    with pytest.raises(InputError, match="NaN"):
        budget.project(torch.full((4,), torch.nan))
    with pytest.raises(InputError, match="last dimension must be 4"):
        budget.project(torch.ones(3))


# -- integer widths --------------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [("45 %",), ("50 %", "40 %")])
@pytest.mark.parametrize("seed", range(6))
def test_allocation_is_that_of_brute_force(seed: int, shares: tuple[str, ...]) -> None:
    costs = (bilinear(seed), bilinear(seed + 100, unit="s"))
    budget = Budget(list(zip(costs, shares, strict=False)))
    importance = importances(SMALL, seed)
    result = budget.allocate(importance)
    X = every_vector(SMALL)
    X = X[budget.is_met(torch.tensor(X)).numpy()]
    assert result.importance == pytest.approx(kept(SMALL, importance, X).max(), rel=1e-12)
    assert result.is_optimal
    assert result.gap == 0
    assert result.check.is_met
    SMALL.check_widths(result.widths)
    for name, width in zip(SMALL.width_names, result.widths, strict=True):
        chosen = importance[name][list(result.channels[name])]
        assert len(chosen) == width
        assert chosen.sum() == pytest.approx(np.sort(importance[name])[::-1][:width].sum())


@pytest.mark.parametrize("most", [(3, 50_000), (50_000, 3)])
def test_allocation_of_very_wide_layers_is_that_of_brute_force(most: tuple[int, int]) -> None:
    spec = chain([Width(f"w{i}", m) for i, m in enumerate(most)])
    budget = Budget([(bilinear(0, spec), "70 %")])
    importance = {w.name: values * (1e5 / w.max) for w, values in wide_importances(spec)}
    result = budget.allocate(importance)
    X = every_vector(spec)
    X = X[budget.is_met(torch.tensor(X)).numpy()]
    largest = {n: np.cumsum(np.sort(values)[::-1]) for n, values in importance.items()}
    total = sum(largest[n][x.astype(int) - 1] for n, x in zip(spec.width_names, X.T, strict=True))
    assert result.importance == pytest.approx(np.max(total), rel=1e-12)
    assert result.is_optimal


def wide_importances(spec: NetworkSpec) -> list[tuple[Width, FloatArray]]:
    rng = np.random.default_rng(0)
    return [(width, rng.gamma(0.5, size=width.max)) for width in spec.widths]


@settings(max_examples=10, deadline=None)
@given(problems())
def test_what_allocation_says_is_so_at_every_magnitude(problem: Problem) -> None:
    assert problem.flaw() is None


def test_small_importance_is_proven_no_more_easily_than_large_one() -> None:
    spec = chain([Width(f"w{i}", 40) for i in range(6)])
    budget = Budget([(bilinear(3, spec), "50 %")])
    for size in (1e-200, 1e-12, 1e200):
        importance = {name: size * values for name, values in importances(spec).items()}
        rough = budget.allocate(importance, max_labels=1)
        assert not rough.is_optimal
        assert 0 < rough.gap < 0.01
    huge = {name: np.full(40, 1e307) for name in spec.width_names}
    with pytest.raises(InputError, match="beyond the largest number"):
        budget.allocate(huge)


def test_a_limit_that_the_smallest_widths_just_meet_is_met() -> None:
    energy = bilinear()
    least = float(energy.predict([SMALL.min_widths])[0])
    result = Budget([(energy, least * (1 - 1e-15))]).allocate(importances(SMALL))
    assert result.widths == SMALL.min_widths
    assert result.is_optimal


def residual() -> NetworkSpec:
    """Every width meets two others at least: no chain."""
    layers = (
        LayerSpec("stem", "conv", 3, "a", in_size=4, out_size=4),
        LayerSpec("inner", "conv", "a", "b", in_size=4, out_size=4),
        LayerSpec("outer", "conv", "b", "a", in_size=4, out_size=4),
        LayerSpec("sum", "add", "a", "a", inputs=("stem", "outer"), in_size=4, out_size=4),
        LayerSpec("down", "conv", "a", "c", inputs=("sum",), in_size=4, out_size=4),
        LayerSpec("side", "conv", "a", "d", inputs=("sum",), in_size=4, out_size=4),
        LayerSpec("cat", "concat", "c+d", "c+d", inputs=("down", "side"), in_size=4, out_size=4),
        LayerSpec("back", "conv", "c+d", "b", in_size=4, out_size=4),
    )
    widths = (Width("a", 8), Width("b", 6), Width("c", 6, 2, 2), Width("d", 7))
    return NetworkSpec("residual", "zoo:residual", (3, 4, 4), widths, layers)


def test_allocation_is_exact_where_widths_form_no_chain() -> None:
    spec = residual()
    X = draw_widths(spec, 60)
    flops = FlopsPredictor(spec).fit(X, [spec.at(row.astype(int)).macs * 1e-6 for row in X])
    budget = Budget([(flops, "50 %")])
    importance = importances(spec)
    result = budget.allocate(importance)
    everything = every_vector(spec)
    everything = everything[budget.is_met(torch.tensor(everything)).numpy()]
    assert result.importance == pytest.approx(kept(spec, importance, everything).max())
    assert result.is_optimal


def test_allocation_under_steps_of_kernels_keeps_to_multiples() -> None:
    spec = networks.get("lenet5")
    budget = Budget([(SystolicArrayModel(spec, "eyeriss"), "60 %")])
    importance = importances(spec)
    steps = {"conv2": 4, "fc1": 10, "fc2": 7}
    result = budget.allocate(importance, multiples=steps)
    grid = every_vector(
        NetworkSpec(
            spec.name,
            spec.source,
            spec.input_shape,
            (
                Width("conv1", 6),
                Width("conv2", 16, 4, 4),
                Width("fc1", 120, 10, 10),
                Width("fc2", 84, 7, 7),
            ),
            spec.layers,
        )
    )
    grid = grid[budget.is_met(torch.tensor(grid)).numpy()]
    assert result.importance == pytest.approx(kept(spec, importance, grid).max())
    assert result.is_optimal
    with pytest.raises(InputError, match="names conv9"):
        budget.allocate(importance, multiples={"conv9": 4})
    with pytest.raises(InputError, match="not an int >= 1"):
        budget.allocate(importance, multiples={"conv2": 0})


def test_allocation_is_exact_under_upper_bounds_that_grow_with_the_cost() -> None:
    class Bounded(PolynomialCostModule):
        """An upper bound that is no sum of pairs, as where errors grow slower than the cost."""

        def upper(self, widths: torch.Tensor, coverage: float = 0.9) -> torch.Tensor:
            cost = self(widths)
            bound: torch.Tensor = cost + coverage * cost**0.5
            return bound

    names = SMALL.width_names
    products = {tuple(pair): 0.01 for pair in itertools.pairwise(names)}
    bounded = Bounded(Polynomial({(): 0.1, **products}), CostInfo(names, SMALL, "J", "energy_j"))
    budget = Budget([(bounded, "60 %")], coverage=0.5)
    importance = importances(SMALL)
    result = budget.allocate(importance)
    X = every_vector(SMALL)
    X = X[budget.is_met(torch.tensor(X)).numpy()]
    assert result.importance == pytest.approx(kept(SMALL, importance, X).max())
    assert result.is_optimal
    assert result.check.is_met


def test_allocation_that_keeps_few_partial_solutions_says_how_far_it_can_be_off() -> None:
    spec = chain([Width(f"w{i}", 40) for i in range(6)])
    budget = Budget([(bilinear(3, spec), "50 %")])
    importance = importances(spec)
    exact, rough = (budget.allocate(importance, max_labels=n) for n in (10**6, 1))
    assert exact.is_optimal
    assert rough.importance <= exact.importance <= rough.bound
    assert rough.is_proven
    assert not rough.is_optimal
    assert 0 < rough.gap < 0.01


def test_allocation_under_a_cost_of_any_form_is_near_its_best_and_proves_nothing() -> None:
    budget = Budget([(curved(), "50 %")])
    importance = importances(SMALL)
    result = budget.allocate(importance)
    X = every_vector(SMALL)
    X = X[budget.is_met(torch.tensor(X)).numpy()]
    best = kept(SMALL, importance, X).max()
    assert 0.97 * best <= result.importance <= best * (1 + 1e-12)
    assert best <= result.bound
    assert not result.is_proven
    assert not result.is_optimal
    assert result.check.is_met


def test_allocation_under_a_gaussian_process_meets_it(dataset: ArrayDataset) -> None:
    few = ArrayDataset(
        dataset.spec, dataset.xyw("energy_j")[0][:25], {"energy_j": dataset.xyw("energy_j")[1][:25]}
    )
    predictor = GaussianProcessPredictor(learning_rows=12).fit_dataset(few, "energy_j")
    budget = Budget([(predictor, "60 %")])
    steps = {w.name: max(1, w.max // 6) for w in dataset.spec.widths}
    result = budget.allocate(importances(dataset.spec), multiples=steps)
    assert result.check.is_met
    assert result.importance <= result.bound


def test_importance_must_fit_the_network() -> None:
    budget = Budget([(bilinear(), "50 %")])
    good = importances(SMALL)
    assert budget.allocate(list(good.values())).widths == budget.allocate(good).widths
    for change, message in [
        ({"b": np.full(8, np.nan)}, "importance of b contains NaN"),
        ({"b": np.ones(7)}, r"shape \(7,\); it is one number for each of its 8"),
        ({"b": "high"}, "importance of b is no array"),
        ({"e": np.ones(3)}, "names e"),
    ]:
        with pytest.raises(InputError, match=message):
            budget.allocate({**good, **change})  # type: ignore[dict-item]
    with pytest.raises(InputError, match="has no d"):
        budget.allocate({name: good[name] for name in "abc"})
    with pytest.raises(InputError, match="holds 3 arrays"):
        budget.allocate(list(good.values())[:3])


def test_widths_that_no_multiple_allows_are_refused() -> None:
    budget = Budget([(bilinear(), "45 %")])
    with pytest.raises(
        InputError, match=r"no widths of chain that meet energy_j <= .* J were found"
    ):
        budget.allocate(importances(SMALL), multiples={"a": 9, "b": 8, "c": 7, "d": 6})


# -- rounding --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aligned() -> AlignedBilinearPredictor:
    """LeNet-5 where kernels for channel counts that 4 divides are three times as fast."""
    spec = networks.get("lenet5")
    X = draw_widths(spec, 160)
    X[::2] = np.maximum(4, X[::2] // 4 * 4)
    cost = np.full(len(X), 1e-5)
    for left, right, rate in ((0, 1, 1e-6), (1, 2, 1e-7), (2, 3, 1e-7)):
        cost += rate * X[:, left] * X[:, right] * np.where(X[:, left] % 4 == 0, 1, 3)
    ds = ArrayDataset(spec, X, {"latency_s": cost})
    return AlignedBilinearPredictor(divisor=4, block=1).fit_dataset(ds, "latency_s")


def test_rounding_goes_up_to_what_the_device_likes_and_down_to_the_budget(
    aligned: AlignedBilinearPredictor,
) -> None:
    widths = [3.2, 9.1, 61.0, 41.5]
    up = aligned.round_widths(widths)
    generous = Budget([(aligned, "95 %")])
    assert generous.round_to_liked(widths).widths == tuple(up.tolist())
    tight = Budget([(aligned, 0.9 * float(aligned.predict([up])[0]))])
    check = tight.round_to_liked(widths)
    assert check.is_met
    assert tight.multiples() == aligned.advised_multiples()
    for width, name, most in zip(check.widths, check.width_names, up, strict=True):
        assert width % aligned.advised_multiples()[name] == 0
        assert width <= most
    # Nothing of what was lowered fits again.
    for at, name in enumerate(check.width_names):
        raised = np.array(check.widths)
        raised[at] += aligned.advised_multiples()[name]
        assert raised[at] > up[at] or not tight.check(raised).is_met
    assert tight.allocate(importances(tight.spec), multiples="advised").check.is_met
    with pytest.raises(InputError, match="multiples is 'liked'"):
        tight.round_to_liked(widths, "liked")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one width vector, not 2"):
        tight.round_to_liked([widths, widths])


def test_rounding_that_cannot_fit_is_refused() -> None:
    budget = Budget([(bilinear(), "20 %")])
    with pytest.raises(InputError, match="no smaller widths of chain meet energy_j"):
        budget.round_to_liked(SMALL.max_widths, {"a": 9, "b": 8, "c": 7, "d": 6})
