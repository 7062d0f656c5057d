"""Finds networks by name, and builds the torch module that a spec describes."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from joulemap import InputError

from ...datasets import NetworkSpec
from ...datasets.network_spec import WidthVector
from .definition import NetworkDefinition, Resolution

if TYPE_CHECKING:
    from torch import nn

Factory: TypeAlias = Callable[..., NetworkDefinition]

# Name -> module in this folder and the function in it that returns the NetworkDefinition.
ZOO = {
    "alexnet": ("alexnet", "alexnet"),
    "erfnet": ("erfnet", "erfnet"),
    "gru": ("gru", "gru"),
    "lenet5": ("lenet5", "lenet5"),
    "lenet5_caffe": ("lenet5_caffe", "lenet5_caffe"),
    "mobilenet_v1": ("mobilenet_v1", "mobilenet_v1"),
    "mobilenet_v2": ("mobilenet_v2", "mobilenet_v2"),
    "resnet18": ("resnet18", "resnet18"),
    "squeezenet": ("squeezenet", "squeezenet"),
    "vit": ("vit", "vit"),
    "vgg16": ("vgg16", "vgg16"),
}


def names() -> tuple[str, ...]:
    """Return the names of the registered networks, sorted."""
    return tuple(sorted(ZOO))


def get(name: str, resolution: Resolution | None = None) -> NetworkSpec:
    """Return the network of that name as data.

    Args:
        name: A registered name, or `module:function` of an outside factory, a function that
            returns a NetworkDefinition.
        resolution: Height and width of the input in pixels (an int means both); the network's
            own default when None.

    Raises:
        InputError: Unknown name, a factory that cannot be used, or a resolution that does not fit.
    """
    source = f"factory:{name}" if ":" in name else f"zoo:{name}"
    return replace(_definition(source, resolution).spec, source=source)


def build(spec: NetworkSpec, widths: WidthVector) -> nn.Module:
    """Return the torch module that `spec` describes, in eval mode, at the given widths.

    Weights are as torch initialises them. The running statistics of batch norms are set to fixed
    non-trivial values, so that the module exports as a trained one does: an exporter that folds a
    fresh norm (mean 0, variance 1) into the convolution before it drops the bias, which is zero.

    Args:
        spec: The network; its `source` says what builds it.
        widths: k ints in channels in order, or a mapping by width name.

    Raises:
        InputError: The widths do not fit the spec, or the source cannot be resolved.
    """
    values = spec.check_widths(widths)
    definition = _definition(spec.source, None)
    if definition.spec.width_names != spec.width_names:
        raise InputError(
            f"{spec.source} has the widths {', '.join(definition.spec.width_names)}, but the spec "
            f"'{spec.name}' has {', '.join(spec.width_names)}; get the spec anew from its source"
        )
    module = definition.build(spec, dict(zip(spec.width_names, values, strict=True)))
    _set_running_statistics(module)
    return module.eval()


def code_fingerprint(source: str) -> str | None:
    """Return the SHA-256 of the file that builds the source's network; None if it has no file.

    Raises:
        InputError: The source cannot be resolved.
    """
    try:
        file = inspect.getsourcefile(inspect.unwrap(_factory(source)))
        return sha256(Path(file or "").read_bytes()).hexdigest()
    except (TypeError, OSError):
        return None


def _definition(source: str, resolution: Resolution | None) -> NetworkDefinition:
    factory = _factory(source)
    if resolution is None:
        definition = factory()
    elif "resolution" not in inspect.signature(factory).parameters:
        raise InputError(f"{source} has a fixed resolution; its function takes no `resolution`")
    else:
        sides = (resolution, resolution) if isinstance(resolution, int) else resolution
        if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
            raise InputError(f"resolution is {resolution!r}, not one or two ints >= 1")
        definition = factory(resolution=resolution)
    if not isinstance(definition, NetworkDefinition):
        raise InputError(
            f"{source} returned a {type(definition).__name__}; a network factory returns a "
            "joulemap.profiler.networks.NetworkDefinition(spec, build)"
        )
    return definition


def _factory(source: str) -> Factory:
    scheme, _, rest = source.partition(":")
    if scheme == "zoo":
        if rest not in ZOO:
            raise InputError(
                f"there is no network '{rest}'; known are {', '.join(names())}, or write "
                "module:function for your own"
            )
        module_name, function_name = ZOO[rest]
        module = importlib.import_module(f".{module_name}", __package__)
        factory: Factory = getattr(module, function_name)
        return factory
    if scheme == "factory":
        return _outside_factory(rest)
    raise InputError(
        f"a network of source '{source}' cannot be built in torch; only zoo: and factory: can"
    )


def _outside_factory(path: str) -> Factory:
    module_name, _, function_name = path.partition(":")
    if not module_name or not function_name:
        raise InputError(f"'{path}' is no network factory; write module:function")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise InputError(
            f"the module '{module_name}' of the network '{path}' cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error
    factory = getattr(module, function_name, None)
    if not callable(factory):
        raise InputError(
            f"the module '{module_name}' has no function '{function_name}' for the network '{path}'"
        )
    found: Factory = factory
    return found


def _set_running_statistics(module: nn.Module) -> None:
    import torch

    with torch.no_grad():
        for position, norm in enumerate(module.modules()):
            mean, variance = (getattr(norm, f"running_{kind}", None) for kind in ("mean", "var"))
            if mean is None or variance is None:
                continue
            # Each norm has its own values: exporters merge tensors that are equal.
            angle = torch.arange(1, mean.numel() + 1, dtype=mean.dtype, device=mean.device)
            angle = angle * math.e + position
            mean.copy_(0.1 * torch.sin(angle))
            variance.copy_(1 + 0.5 * torch.cos(angle))
