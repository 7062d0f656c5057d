"""What a torch module is called with: shapes that the user gives, else what its kind is known by."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from joulemap import InputError
from joulemap.showable_text import showable

from .. import factories
from .input_shapes import InputShape, example, is_index, with_batch

if TYPE_CHECKING:
    import torch
    from torch import nn

IMAGE = (1, 3, 224, 224)
VIDEO = (1, 3, 16, 112, 112)
SECOND_OF_SOUND = (1, 16000)


def example_inputs(
    module: nn.Module,
    given: Sequence[InputShape],
    own: Any,
    *,
    name: str,
    batch: int,
) -> tuple[Any, ...] | dict[str, Any]:
    """Return what a module is called with: positional arguments, or arguments by name.

    Args:
        module: The network.
        given: Shapes that the user gives; they win.
        own: What came with the module; None for nothing.
        name: What the network is called, for sentences.
        batch: Samples per call; inputs that begin with a 1 begin with the batch instead.

    Raises:
        InputError: Nobody says the inputs, or what is given does not fit the module.
    """
    base = _as_arguments(own)
    if base is None:
        with factories.users_code(f"the example inputs of '{name}'"):
            base = _known_by_kind(module)
    if base is None and not given:
        first, *others = [*_parameters(module), "NAME"][:-1] or ["NAME"]
        more = f" (and {showable(', '.join(others), 60)} likewise)" if others else ""
        raise InputError(
            f"'{name}' does not say what it is called with; give the shape: --input "
            f"{showable(first, 60)}=1x3x224x224[:dtype]{more}, or return (module, example_inputs)"
        )
    args, kwargs = base or ((), {})
    args = tuple(_batched(item, batch) for item in args)
    kwargs = {key: _batched(item, batch) for key, item in kwargs.items()}
    if not given:
        return kwargs if kwargs else args
    return _with_given(module, given, args, kwargs, name=name, batch=batch)


def _as_arguments(own: Any) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    if own is None:
        return None
    if isinstance(own, Mapping):
        return (), dict(own)
    return (tuple(own) if isinstance(own, tuple | list) else (own,)), {}


def _known_by_kind(module: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Return the inputs of a network of timm, transformers or torchvision; None for others."""
    for attribute in ("pretrained_cfg", "default_cfg"):
        config = getattr(module, attribute, None)
        size = config.get("input_size") if isinstance(config, Mapping) else None
        size = getattr(config, "input_size", size)
        if isinstance(size, tuple | list) and all(isinstance(each, int) for each in size):
            return (_tensor(InputShape((1, *size)), "x", "float32"),), {}
    if hasattr(module, "main_input_name") and hasattr(module, "config"):
        return (), _of_transformers(module)
    origin = type(module).__module__
    if origin.startswith("torchvision."):
        dims = VIDEO if ".video" in origin else IMAGE
        return (_tensor(InputShape(dims), "x", "float32"),), {}
    return None


def _of_transformers(module: Any) -> dict[str, Any]:
    config, main = module.config, str(module.main_input_name)
    if main == "pixel_values":
        vision = getattr(config, "vision_config", config)
        size = getattr(vision, "image_size", 224)
        sides = tuple(size) if isinstance(size, tuple | list) else (size, size)
        dims = (1, int(getattr(vision, "num_channels", 3)), *map(int, sides))
        return {main: _tensor(InputShape(dims), main, "float32")}
    if main == "input_values":
        return {main: _tensor(InputShape(SECOND_OF_SOUND), main, "float32")}
    if main == "input_features":
        bins = int(getattr(config, "num_mel_bins", 80))
        frames = 2 * int(getattr(config, "max_source_positions", 1500))
        return {main: _tensor(InputShape((1, bins, frames)), main, "float32")}
    # Three sequences; one is a call of batch 1.
    return {key: value[:1] for key, value in module.dummy_inputs.items()}


def _parameters(module: nn.Module) -> list[str]:
    """Return the names of what a module can be called with, the first ones first."""
    try:
        found = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [item.name for item in found if item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD)]


def _takes_any_name(module: nn.Module) -> bool:
    found = inspect.signature(module.forward).parameters.values()
    return any(item.kind is item.VAR_KEYWORD for item in found)


def _tensor(shape: InputShape, name: str, dtype: str) -> torch.Tensor:
    import torch

    return torch.from_numpy(example(shape.dims, shape.dtype or dtype, name).copy())


def _batched(value: Any, batch: int) -> Any:
    """Return inputs whose tensors begin with the batch where they began with 1."""
    import torch

    if isinstance(value, torch.Tensor):
        dims = with_batch(tuple(value.shape), batch, "of the network")
        if dims == tuple(value.shape):
            return value
        return value.expand(dims).clone()
    if isinstance(value, Mapping):
        return {key: _batched(item, batch) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_batched(item, batch) for item in value)
    return value


def _with_given(
    module: nn.Module,
    given: Sequence[InputShape],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    name: str,
    batch: int,
) -> dict[str, Any] | tuple[Any, ...]:
    known = _parameters(module)
    named = dict(zip(known, args, strict=False)) | dict(kwargs)
    if len(given) == 1 and given[0].name is None:
        if not known:
            return (_tensor(_at_batch(given[0], batch), "x", "float32"),)
        first = next(iter(named), known[0])
        given = [InputShape(given[0].dims, first, given[0].dtype)]
    for shape in given:
        key = str(shape.name)
        if key not in known and key not in named and not _takes_any_name(module):
            raise InputError(
                f"'{name}' has no input '{showable(key, 80)}'; it is called with "
                f"{showable(', '.join(known), 150) or 'nothing'}"
            )
        before = named.get(key)
        dtype = _dtype_of(before) or ("int64" if is_index(key) else "float32")
        shape = _at_batch(shape, batch)
        named[key] = _tensor(shape, key, dtype)
        # What is as long as the input that changes, such as its mask, stays as long.
        for other, value in named.items():
            same = getattr(value, "shape", None) == getattr(before, "shape", ())
            if before is not None and same and other not in [str(each.name) for each in given]:
                kind = _dtype_of(value) or "float32"
                named[other] = _tensor(InputShape(shape.dims), other, kind)
    return named


def _at_batch(shape: InputShape, batch: int) -> InputShape:
    dims = with_batch(shape.dims, batch, str(shape.name or "of the network"))
    return InputShape(dims, shape.name, shape.dtype)


def _dtype_of(value: Any) -> str | None:
    dtype = getattr(value, "dtype", None)
    return None if dtype is None else str(dtype).removeprefix("torch.")
