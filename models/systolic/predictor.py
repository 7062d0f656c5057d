"""Energy and latency of a network on a systolic array, computed from its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from joulemap import InputError

from ...datasets import LayerSpec, NetworkSpec
from ...datasets.layer_spec import ResolvedLayer
from ..base.cost_module import CostModule
from ..base.intervals import FloatArray
from ..base.predictor import Predictor
from ..base.training import Training
from ..linear.predictor import check_loss, fit_nonnegative, loss_weights
from .energy import ConvGeometry, LayerEnergy, conv_energy, linear_energy
from .hardware import PRESETS, SystolicHardware, hardware_named
from .layers import SystolicLayer, dense_chain, geometry_of, systolic_layers
from .module import Form, Quantity, SystolicCostModule
from .torch_layers import NetworkEnergy, energy_of_module

# Rows computed together: intermediate results stay in the processor's cache.
CHUNK = 2048
# Random widths over which the surrogate's largest deviation is taken, beside the bounds.
NUM_DEVIATIONS = 4096


class SystolicArrayModel(Predictor):
    """The cost of a network on a systolic array; needs no data when a spec is given.

    Without data `predict` returns the array's energy in the unit of the hardware (`mac`, one 16-bit
    multiply-accumulate, or joules) or its latency. Fitted to data it is
    a_0 + a_1 * that, with a_0, a_1 >= 0.

    Source: Yang, Zhu, Liu, "Energy-Constrained Compression for Deep Neural Networks via Weighted
    Sparse Projection and Layer Input Masking", ICLR 2019. Only layers with weights cost anything.
    Batch is 1.

    Args:
        spec: The network; None for a chain of dense layers whose hidden widths are the columns
            of X, between one input and one output.
        hardware: A preset ('eyeriss', 'tpu'), a file NAME.toml, a SystolicHardware, or a mapping
            of its fields.
        quantity: 'energy' or 'latency'; 'auto' is latency where it is fitted to seconds, else energy.
        form: 'exact', or 'relaxed': multiplications by zero inputs cost like others, which bounds
            the energy from above.
        loss: For a fit: 'absolute' minimises squared errors, 'relative' those divided by y.

    Attributes:
        intercept_: a_0; 0 without data.
        coef_: a_1; 1 without data.
        quantity_: 'energy' or 'latency'.
    """

    state_names: ClassVar[tuple[str, ...]] = ("coef_", "intercept_", "constants_")

    coef_: float
    intercept_: float
    constants_: FloatArray
    quantity_: Quantity
    _array_module: SystolicCostModule

    def __init__(
        self,
        spec: NetworkSpec | None = None,
        hardware: str | SystolicHardware | Mapping[str, Any] = "eyeriss",
        *,
        quantity: Quantity | Literal["auto"] = "auto",
        form: Form = "exact",
        loss: Literal["absolute", "relative"] = "absolute",
    ) -> None:
        super().__init__(spec)
        self.hardware = hardware
        self.quantity = quantity
        self.form = form
        self.loss = loss

    # -- predictor -------------------------------------------------------------------------------

    def ready(self) -> None:
        """Set the model up from its spec where it was not fitted.

        Raises:
            NotFittedError: Neither a spec nor data.
        """
        if self.spec is None or getattr(self, "num_samples_", 0) > 0:
            super().ready()
            return
        if getattr(self, "_ready_for", None) == self._parameters():
            return
        self.check_parameters()
        self.quantity_ = "latency" if self.quantity == "latency" else "energy"
        unit = self.array.unit if self.quantity_ == "energy" else self.array.time_unit
        target = {"J": "energy_j", "s": "latency_s"}.get(unit, "cost")
        self.bind(self.spec.width_names, unit=unit, target=target, conditions={"batch": 1})
        self.intercept_, self.coef_ = 0.0, 1.0
        self.constants_ = _constants(self.array)
        self._array_module = self._module()
        self._ready_for = self._parameters()

    def fit_arrays(self, training: Training) -> None:
        """Set a_0 and a_1."""
        X, y, weights = training.X, training.y, training.weights
        self.quantity_ = self._quantity_for(training.unit)
        self.constants_ = _constants(self.array)
        self._array_module = self._module()
        weights = loss_weights(self.loss, y, weights)
        cost = self._array_cost(X)
        self.intercept_, coefficients = fit_nonnegative(cost[:, None], y, weights)
        self.coef_ = float(coefficients[0])

    def predict_arrays(self, X: FloatArray) -> FloatArray:
        """Return the cost (n,) of checked widths (n, k)."""
        return self.intercept_ + self.coef_ * self._array_cost(X)

    def exact_module(self) -> SystolicCostModule:
        """Return the cost as a torch module, interpolated between whole channel counts."""
        return self._module(self.intercept_, self.coef_)

    def smooth_module(self) -> CostModule:
        """Return the cost with ceilings and the overlap of strips replaced by their average.

        Its `max_deviation` is the largest over the bounds and random whole widths.
        """
        module = self._module(self.intercept_, self.coef_, is_smooth=True)
        X = self._widths_to_compare()
        with torch.no_grad():
            smooth = module(torch.from_numpy(X)).numpy()
        exact = self.predict_arrays(X)
        deviation = np.abs(smooth - exact) / np.maximum(np.abs(exact), np.finfo(float).tiny)
        module.info = replace(module.info, max_deviation=float(deviation.max()))
        return module

    def save(self, path: Any) -> None:
        """Write the model to a safetensors file, which `joulemap.models.load` reads.

        Args:
            path: The file; replaced as a whole.
        """
        other = SystolicArrayModel(**self.get_params(deep=False))
        self.ready()
        other.__dict__.update(self.__dict__)
        if not isinstance(self.hardware, str) or self.hardware not in PRESETS:
            other.hardware = asdict(self.array)
        super(SystolicArrayModel, other).save(path)

    def check_parameters(self) -> None:
        """Check the hyperparameters.

        Raises:
            InputError: One of them is not usable.
        """
        check_loss(self.loss)
        for name, known in (
            ("quantity", ("auto", "energy", "latency")),
            ("form", ("exact", "relaxed")),
        ):
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}; write one of {', '.join(known)}"
                )
        _ = self.array

    def check_state(self) -> None:
        """Check what came from a file.

        Raises:
            InputError: It was computed for other hardware, or has wrong shapes.
        """
        if not np.array_equal(self.constants_, _constants(self.array)):
            raise InputError(
                f"it was written for other constants of '{self.array.name}' than this version has"
            )
        if np.ndim(self.coef_) or np.ndim(self.intercept_):
            raise InputError("coef_ and intercept_ are not single numbers")
        self.quantity_ = self._quantity_for(self.unit_)
        self._array_module = self._module()

    @property
    def array(self) -> SystolicHardware:
        """The hardware.

        Raises:
            InputError: Unknown, or values that no hardware has.
        """
        hardware = self.hardware
        if isinstance(hardware, SystolicHardware):
            return hardware
        if isinstance(hardware, Mapping):
            return SystolicHardware.from_mapping(hardware)
        return hardware_named(hardware)

    # -- what it is made of ----------------------------------------------------------------------

    def breakdown(self, X: ArrayLike) -> pd.DataFrame:
        """Return the cost of every layer, one row for each (row of X, layer).

        For energy the columns are `weight`, `input`, `computation` and `total`, in the hardware's
        unit; for latency `array` and `memory` (seconds or cycles that each is busy), `total` (the
        longer) and `utilisation`, the share of the array's multiply-accumulates that are needed.

        Args:
            X: Widths in channels, array (n, k) or DataFrame with a column per width.

        Raises:
            InputError: As `predict`.
        """
        self.ready()
        widths = torch.tensor(self._checked_widths(X))
        module = self._array_module
        with torch.no_grad():
            module.refuse_too_large(widths)
            if self.quantity_ == "energy":
                energies = module.energies(widths)
                columns = dict(energies._asdict(), total=sum(energies))
            else:
                cycles, clock = module.cycles(widths), self.array.clock_hz or 1.0
                columns = {name: getattr(cycles, name) / clock for name in ("array", "memory")}
                columns["total"] = cycles.total / clock
                columns["utilisation"] = cycles.macs / clock
        index = pd.MultiIndex.from_product(
            [range(len(widths)), module.layer_names], names=["row", "layer"]
        )
        table = pd.DataFrame({k: v.numpy().reshape(-1) for k, v in columns.items()}, index=index)
        # A recurrent layer is two on the array.
        table = table.groupby(level=["row", "layer"], sort=False).sum()
        if "utilisation" in table:
            table["utilisation"] /= table["total"]
        return table

    def layer_energy(
        self,
        layer: str | LayerSpec | ResolvedLayer,
        weight_mask: ArrayLike | torch.Tensor | None = None,
        input_mask: ArrayLike | torch.Tensor | None = None,
        exact: bool = True,
    ) -> LayerEnergy:
        """Return the energy of one layer, in the hardware's unit, with zeros where masks say so.

        Args:
            layer: A layer with whole sizes, or the name of a layer of the spec, at full width.
            weight_mask: Non-zero where a weight is: (out, in / groups, height, width) for a conv,
                (out, in) for a linear layer; all where None.
            input_mask: Non-zero where an input is, (in, height, width), of a conv.
            exact: Whether multiplications by zero inputs, padding included, cost nothing.

        Raises:
            InputError: A layer without weights, sizes that are not whole, masks of another shape,
                or an input of which too few rows fit into the cache.
        """
        resolved = self._resolved(layer)
        weights = None if weight_mask is None else _as_mask("weight", weight_mask)
        inputs = None if input_mask is None else _as_mask("input", input_mask)
        if resolved.kind in ("conv", "conv_transpose"):
            conv = geometry_of(resolved)
        elif resolved.kind != "linear":
            raise InputError(
                f"layer '{resolved.name}' is of kind {resolved.kind}; the energy of single layers "
                "is known of conv, conv_transpose and linear"
            )
        elif resolved.positions == 1:
            if inputs is not None:
                raise InputError(f"layer '{resolved.name}' is linear and takes no input mask")
            return linear_energy(
                self.array, resolved.in_channels, resolved.out_channels, weight_mask=weights
            )
        else:
            conv = ConvGeometry(
                resolved.in_channels, resolved.out_channels, (resolved.positions, 1), (1, 1)
            )
            if weights is not None:
                weights = weights.reshape(*weights.shape, 1, 1)
        return conv_energy(self.array, conv, weight_mask=weights, input_mask=inputs, is_exact=exact)

    def module_energy(
        self,
        module: torch.nn.Module,
        input_shape: tuple[int, ...] | None = None,
        input_masks: Mapping[str, Any] | None = None,
        exact: bool = True,
    ) -> NetworkEnergy:
        """Return the energy of one sample through a torch module, with the zeros of its weights.

        Args:
            module: Any network of convolutions and linear layers.
            input_shape: Shape of one sample, without batch; the spec's where None.
            input_masks: Name of a convolution to a mask of its inputs, (in, height, width).
            exact: Whether multiplications by zero inputs, padding included, cost nothing.

        Raises:
            InputError: No input shape, a module that cannot run on it, or a layer that the model
                cannot compute.
        """
        shape = input_shape if input_shape is not None else self.spec and self.spec.input_shape
        if not shape:
            raise InputError("name the input_shape of one sample, such as (3, 224, 224)")
        masks = {name: _as_mask("input", mask) for name, mask in (input_masks or {}).items()}
        return energy_of_module(self.array, module, tuple(shape), masks, exact)

    # -- inside ----------------------------------------------------------------------------------

    def _quantity_for(self, unit: str) -> Quantity:
        if self.quantity != "auto":
            return self.quantity
        return "latency" if unit == "s" else "energy"

    def _layers(self) -> list[SystolicLayer]:
        if self.spec is None:
            return dense_chain(self.width_names_)
        return systolic_layers(self.spec, self.array)

    def _module(
        self, intercept: float = 0.0, coefficient: float = 1.0, is_smooth: bool = False
    ) -> SystolicCostModule:
        return SystolicCostModule(
            self._layers(),
            self.array,
            self.cost_info(),
            quantity=self.quantity_,
            form=self.form,
            is_smooth=is_smooth,
            intercept=intercept,
            coefficient=coefficient,
        )

    def _array_cost(self, X: FloatArray) -> FloatArray:
        module, is_whole = self._array_module, bool(np.all(np.floor(X) == X))
        cost = np.empty(len(X))
        with torch.no_grad():
            for start in range(0, len(X), CHUNK):
                widths = torch.tensor(X[start : start + CHUNK])
                if self.spec is not None:
                    module.refuse_too_large(widths)
                cost[start : start + CHUNK] = module.array_cost(widths, is_whole).numpy()
        return cost

    def _widths_to_compare(self) -> FloatArray:
        rng = np.random.default_rng(0)
        if self.spec is not None:
            drawn = [
                width.multiple
                * rng.integers(-(-width.min // width.multiple), width.max // width.multiple + 1, n)
                for width in self.spec.widths
                for n in [NUM_DEVIATIONS]
            ]
            ends = np.array([self.spec.min_widths, self.spec.max_widths])
        else:
            ends = np.ones((2, self.n_features_in_))
            if self.width_ranges_ is not None:
                ends = np.maximum(np.rint(self.width_ranges_), 1)
            drawn = [rng.integers(low, high + 1, NUM_DEVIATIONS) for low, high in ends.T.tolist()]
        return np.vstack([ends, np.column_stack(drawn)]).astype(np.float64)

    def _resolved(self, layer: str | LayerSpec | ResolvedLayer) -> ResolvedLayer:
        if isinstance(layer, ResolvedLayer):
            return layer
        if isinstance(layer, LayerSpec):
            sizes = (layer.in_channels, layer.out_channels, layer.groups)
            if names := sorted(set().union(*(size.names for size in sizes))):
                raise InputError(
                    f"layer '{layer.name}' depends on the width {names[0]}; resolve it with "
                    "layer.at(widths)"
                )
            return layer.at({})
        if self.spec is None:
            raise InputError(f"there is no layer '{layer}' without a spec")
        found = [item for item in self.spec.layers if item.name == layer]
        if not found:
            raise InputError(f"there is no layer '{layer}' in {self.spec.name}")
        return found[0].at(dict(zip(self.spec.width_names, self.spec.max_widths, strict=True)))

    def _parameters(self) -> tuple[Any, ...]:
        return (self.spec, self.array, self.quantity, self.form)


def _as_mask(what: str, mask: ArrayLike | torch.Tensor) -> NDArray[np.bool_]:
    array = mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask)
    if array.dtype == bool:
        return array
    if array.dtype == object or (array.dtype.kind == "f" and np.isnan(array).any()):
        raise InputError(f"the {what} mask contains NaN or values that are no numbers")
    return np.asarray(array != 0)


def _constants(hardware: SystolicHardware) -> FloatArray:
    """Return the hardware's numbers; 0 stands for one that is not known."""
    values = [getattr(hardware, item.name) for item in fields(hardware) if item.name != "name"]
    return np.array([0.0 if value is None else value for value in values], dtype=np.float64)
