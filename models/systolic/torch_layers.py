"""The energy of a torch module on a systolic array, with the zeros that its weights have."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from joulemap import InputError

from .energy import ConvGeometry, LayerEnergy, Mask, conv_energy, linear_energy
from .hardware import SystolicHardware

# Layers whose arithmetic this cannot follow; others cost nothing or are made of known ones.
_UNKNOWN: tuple[type[nn.Module], ...] = (
    nn.Bilinear,
    nn.Conv3d,
    nn.ConvTranspose3d,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.RNNCellBase,
)
_KNOWN = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True)
class NetworkEnergy:
    """Energy of a network by layer, in the hardware's unit.

    Attributes:
        layers: Name of a layer, in the order of their first calls, to its energy; of a layer that
            is called several times the sum.
        unit: 'mac', or 'J'.
    """

    layers: Mapping[str, LayerEnergy]
    unit: str

    @property
    def weight(self) -> float:
        """Energy of moving weights."""
        return sum(layer.weight for layer in self.layers.values())

    @property
    def input(self) -> float:
        """Energy of moving inputs and outputs."""
        return sum(layer.input for layer in self.layers.values())

    @property
    def computation(self) -> float:
        """Energy of multiply-accumulates."""
        return sum(layer.computation for layer in self.layers.values())

    @property
    def total(self) -> float:
        """The sum of the three."""
        return self.weight + self.input + self.computation


def energy_of_module(
    hardware: SystolicHardware,
    module: nn.Module,
    input_shape: tuple[int, ...],
    input_masks: Mapping[str, Mask],
    is_exact: bool,
) -> NetworkEnergy:
    """Return the energy of one sample through a module, in the hardware's unit.

    Args:
        hardware: The array.
        module: The network; it runs once, on zeros, in evaluation mode.
        input_shape: Shape of one sample, without batch.
        input_masks: Name of a convolution to which of its inputs are not zero.
        is_exact: Whether multiplications by zero inputs, padding included, cost nothing.

    Raises:
        InputError: The module does not run on that shape, or has a layer that cannot be computed.
    """
    names = {part: name for name, part in module.named_modules()}
    for part, name in names.items():
        if isinstance(part, _UNKNOWN):
            raise InputError(
                f"the energy of '{name}' ({type(part).__name__}) cannot be computed; known are "
                + ", ".join(kind.__name__ for kind in _KNOWN)
            )
    if unknown := sorted(set(input_masks) - set(names.values())):
        raise InputError(f"there is no layer '{unknown[0]}' for the input mask in the module")
    found: dict[str, LayerEnergy] = {}

    def called(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        name = names[part]
        mask = input_masks.get(name)
        try:
            energy = _energy(hardware, part, inputs[0].shape, mask, is_exact)
        except InputError as error:
            raise InputError(f"layer '{name}': {error}") from error
        found[name] = found[name] + energy if name in found else energy

    hooks = [part.register_forward_hook(called) for part in names if isinstance(part, _KNOWN)]
    first = next(iter(module.parameters()), torch.zeros(()))
    sample = torch.zeros((1, *input_shape), dtype=first.dtype, device=first.device)
    try:
        with _in_evaluation(module), torch.no_grad():
            module(sample)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"the module does not run on a sample of shape {input_shape}: {error}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return NetworkEnergy(MappingProxyType(found), hardware.unit)


@contextlib.contextmanager
def _in_evaluation(module: nn.Module) -> Iterator[None]:
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _energy(
    hardware: SystolicHardware,
    part: nn.Module,
    shape: torch.Size,
    input_mask: Mask | None,
    is_exact: bool,
) -> LayerEnergy:
    weight: torch.Tensor = part.weight.detach()  # type: ignore[operator]
    mask = (weight != 0).cpu().numpy()
    if isinstance(part, nn.Linear):
        positions = prod(shape[1:-1])
        if positions == 1 and input_mask is None:
            return linear_energy(hardware, part.in_features, part.out_features, weight_mask=mask)
        conv = ConvGeometry(part.in_features, part.out_features, (positions, 1), (1, 1))
        mask = mask.reshape(*mask.shape, 1, 1)
    else:
        conv, mask = _geometry(part, tuple(shape[2:])), mask.reshape(*_weight_shape(mask.shape))
        if isinstance(part, nn.ConvTranspose1d | nn.ConvTranspose2d):
            # Stored as (in, out / groups, ...), by groups of inputs, and flipped.
            groups = part.groups
            split = mask.reshape(groups, -1, *mask.shape[1:])
            mask = split.swapaxes(1, 2).reshape(conv.weight_shape)[:, :, ::-1, ::-1]
    if input_mask is not None and input_mask.ndim == 2:
        input_mask = input_mask[:, None, :]
    return conv_energy(hardware, conv, weight_mask=mask, input_mask=input_mask, is_exact=is_exact)


def _weight_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape if len(shape) == 4 else (shape[0], shape[1], 1, shape[2])


def _geometry(part: Any, in_size: tuple[int, ...]) -> ConvGeometry:
    if part.padding_mode != "zeros":
        raise InputError(f"padding mode '{part.padding_mode}' is not known, only zeros")
    padding = part.padding
    if padding == "valid":
        padding = (0,) * len(in_size)
    elif padding == "same":
        reach = [d * (k - 1) for d, k in zip(part.dilation, part.kernel_size, strict=True)]
        if any(value % 2 for value in reach):
            raise InputError("padding 'same' of an even kernel is not symmetric")
        padding = tuple(value // 2 for value in reach)
    geometry: dict[str, Any] = {
        "in_channels": part.in_channels,
        "out_channels": part.out_channels,
        "in_size": _pair(in_size, 1),
        "kernel_size": _pair(part.kernel_size, 1),
        "stride": _pair(part.stride, 1),
        "padding": _pair(padding, 0),
        "dilation": _pair(part.dilation, 1),
        "groups": part.groups,
    }
    if isinstance(part, nn.ConvTranspose1d | nn.ConvTranspose2d):
        return ConvGeometry.transposed(**geometry, output_padding=_pair(part.output_padding, 0))
    return ConvGeometry(**geometry)


def _pair(values: tuple[int, ...], first: int) -> tuple[int, int]:
    return (values[0], values[1]) if len(values) == 2 else (first, values[0])
