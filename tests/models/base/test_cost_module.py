import copy
import io

import numpy as np
import pytest
import torch

from joulemap.datasets import NetworkSpec
from joulemap.models import BilinearPredictor, CostModule
from joulemap.models.base.cost_module import CostInfo
from joulemap.models.testing import ArrayDataset, draw_widths


@pytest.fixture(scope="module")
def predictor(dataset: ArrayDataset) -> BilinearPredictor:
    return BilinearPredictor().fit_dataset(dataset, "energy_j")


# Importing torch's own compiler warns about torch's own deprecations.
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_compiles_with_gradients(predictor: BilinearPredictor) -> None:
    module = predictor.to_torch()
    compiled = torch.compile(module, fullgraph=True)
    x = torch.tensor(draw_widths(module.spec, 6), dtype=torch.float32, requires_grad=True)  # type: ignore[arg-type]
    plain = x.detach().clone().requires_grad_()
    compiled(x).sum().backward()
    module(plain).sum().backward()
    torch.testing.assert_close(compiled(x), module(x), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(x.grad, plain.grad, rtol=1e-6, atol=0.0)


def test_interpolates_between_integers(predictor: BilinearPredictor) -> None:
    module = predictor.to_torch()
    low = torch.full((7,), 10.0, dtype=torch.float64)
    high, middle = low.clone(), low.clone()
    high[2], middle[2] = 11.0, 10.5
    torch.testing.assert_close(module(middle), (module(low) + module(high)) / 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_output_follows_the_input(predictor: BilinearPredictor, dtype: torch.dtype) -> None:
    module = predictor.to_torch()
    widths = torch.tensor([64.0, 192, 384, 256, 256, 4096, 4096])
    cost = module(widths.to(dtype))
    assert cost.dtype == dtype
    torch.testing.assert_close(cost, module(widths.double()).to(dtype))


def test_integer_widths_give_the_default_dtype(predictor: BilinearPredictor) -> None:
    module = predictor.to_torch()
    assert module(torch.ones(7, dtype=torch.int64)).dtype == torch.get_default_dtype()


def test_lowered_to_float32(predictor: BilinearPredictor, dataset: ArrayDataset) -> None:
    module = predictor.to_torch()
    x = torch.tensor(draw_widths(dataset.spec, 50))
    lowered = copy.deepcopy(module).float()
    assert lowered.dtype == torch.float32
    torch.testing.assert_close(lowered(x), module(x), rtol=1e-5, atol=0.0)


def test_empty_batch(predictor: BilinearPredictor) -> None:
    assert predictor.to_torch()(torch.ones(0, 7)).shape == (0,)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_second_derivatives(predictor: BilinearPredictor) -> None:
    module = predictor.to_torch()
    hessian = torch.func.hessian(module)(torch.ones(7, dtype=torch.float64))
    expected = predictor.coef_[1] / (64 * 192)
    np.testing.assert_allclose(hessian[0, 1].item(), expected, rtol=1e-9)
    assert torch.count_nonzero(torch.diagonal(hessian)) == 0


def test_state_can_be_saved_by_torch(predictor: BilinearPredictor) -> None:
    module = predictor.to_torch()
    assert {"offset", "linear", "neighbours"} <= set(module.state_dict())
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    module.load_state_dict(torch.load(file, weights_only=True))


def test_prints_what_it_predicts(predictor: BilinearPredictor) -> None:
    assert "7 widths -> energy_j in J" in repr(predictor.to_torch())


def test_a_module_without_buffers_computes_in_float64(alexnet: NetworkSpec) -> None:
    class Sum(CostModule):
        def cost(self, widths: torch.Tensor) -> torch.Tensor:
            assert widths.dtype == torch.float64
            return widths.sum(-1)

    module = Sum(CostInfo(alexnet.width_names, alexnet))
    assert module(torch.ones(3, 7)).tolist() == [7.0, 7.0, 7.0]
    with pytest.raises(NotImplementedError):
        CostModule(CostInfo(("a",)))(torch.ones(1))
