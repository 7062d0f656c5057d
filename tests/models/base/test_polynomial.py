import numpy as np
import pytest
import torch

from joulemap import InputError
from joulemap.datasets import LayerSpec, NetworkSpec, Width
from joulemap.models.base.cost_module import CostInfo
from joulemap.models.base.polynomial import Polynomial, PolynomialCostModule, network_quantity
from joulemap.models.testing import draw_widths

a, b = Polynomial.variable("a"), Polynomial.variable("b")


def test_arithmetic() -> None:
    assert (a + b) * (a + b * -1.0) == Polynomial({("a", "a"): 1.0, ("b", "b"): -1.0})
    assert 2 * a + 3 == Polynomial({("a",): 2.0, (): 3.0})
    assert (a * b).at({"a": 2.0, "b": 3.0}) == 6.0
    assert Polynomial({}).at({}) == 0.0


def test_exact_division() -> None:
    assert (a * a * b + a * b) / a == a * b + b
    assert (a + b) * (a + b) / (a + b) == a + b
    assert (a * a + a * b + 3 * a) / (a + b + 3) == a
    assert (4 * a) / 2 == 2 * a
    for divisor in (b, a + 1, Polynomial({})):
        with pytest.raises(InputError, match="not a multiple"):
            (a * a) / divisor
    with pytest.raises(InputError, match="not a multiple"):
        3.0 / a


@pytest.mark.parametrize("quantity", ["macs", "params"])
def test_network_quantity_is_exact(mixed: NetworkSpec, quantity: str) -> None:
    polynomial = network_quantity(mixed, quantity)
    for row in draw_widths(mixed, 20).astype(int):
        exact = getattr(mixed.at([int(x) for x in row]), quantity)
        assert polynomial.at(dict(zip(mixed.width_names, row.tolist(), strict=True))) == exact


def test_groups_that_do_not_divide_are_refused() -> None:
    layers = (LayerSpec("odd", "conv", 12, 12, groups="a"),)
    spec = NetworkSpec("odd", "zoo:odd", (12, 8, 8), (Width("a", 12, 12, 12),), layers)
    with pytest.raises(InputError, match="layer 'odd' of odd"):
        network_quantity(spec, "macs")


def test_module_evaluates_all_degrees() -> None:
    polynomial = a * a * a * b * 0.5 + a * b * b + a * b * 2.0 + b * b + a * -1.0 + 7
    module = PolynomialCostModule(polynomial, CostInfo(("a", "b")))
    x = np.random.default_rng(0).random((5, 4, 2)) * 3
    expected = polynomial.at({"a": x[..., 0], "b": x[..., 1]})
    np.testing.assert_allclose(module(torch.tensor(x)).numpy(), expected, rtol=1e-12)
    inputs = torch.tensor(x[0], requires_grad=True)
    assert torch.autograd.gradcheck(module, inputs)
    assert torch.autograd.gradgradcheck(module, inputs)


def test_module_of_one_width_or_of_a_constant() -> None:
    for polynomial in (Polynomial.constant(3.0), a * 2.0 + 1, a * a):
        module = PolynomialCostModule(polynomial, CostInfo(("a",)))
        x = torch.tensor([[2.0], [5.0]], requires_grad=True)
        cost = module(x)
        assert cost.tolist() == [polynomial.at({"a": value}) for value in (2.0, 5.0)]
        cost.sum().backward()
        assert x.grad is not None
