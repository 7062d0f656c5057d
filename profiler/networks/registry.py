"""Finds networks by name, and builds the torch module that a spec describes."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from joulemap import InputError
from joulemap.plug_ins import PlugIn, PlugIns

from ...datasets import NetworkSpec
from ...datasets.network_spec import WidthVector
from . import factories
from .definition import NetworkDefinition, Resolution
from .factories import Factory
from .graph.foreign_spec import Choices, foreign_spec, spec_of_module
from .graph.known import derived_of, is_known
from .graph.shrinking import shrink
from .importing import is_foreign

if TYPE_CHECKING:
    from torch import nn

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

OUTSIDE = PlugIns("networks", "network", ZOO)


def register(name: str, factory: Factory) -> None:
    """Make a network of your own known by a name, in this process.

    A package says the same for good by an entry point of the group `joulemap.networks`.

    Args:
        name: Letters, digits, `_` and `-`.
        factory: A function that returns a NetworkDefinition; one registered before by this name
            gives way. The spec's source is `factory:module:function`, whatever the name.

    Raises:
        InputError: The name is taken, or cannot be one; or this is no function.
    """
    factories.name_factory(factory)
    OUTSIDE.register(name, factory)


def names() -> tuple[str, ...]:
    """Return the names of the registered networks, sorted."""
    return tuple(sorted((*ZOO, *OUTSIDE.names())))


def get(
    name: str | os.PathLike[str] | Factory,
    resolution: Resolution | None = None,
    *,
    inputs: Sequence[str] = (),
    freeze: Sequence[str] = (),
    multiples: Mapping[str, int] | None = None,
) -> NetworkSpec:
    """Return the network of that name as data.

    Args:
        name: A registered name; `module:function` or `FILE.py:function`, whose function returns a
            torch module, a tuple of it and its example inputs, or a NetworkDefinition; that function
            itself; `timm:NAME`, `torchvision:NAME` or `hf:CONFIG_CLASS`; or an ONNX file. Of a
            network without a spec of its own, the widths are derived from its graph.
        resolution: Height and width of the input in pixels (an int means both); the network's
            own default when None.
        inputs: Shapes of a derived network's inputs, `NAME=1x3x224x224[:dtype]`.
        freeze: Patterns (`*`, `?`) of widths or module paths that keep their sizes.
        multiples: Pattern of widths to a number that they shall be multiples of.

    Raises:
        InputError: Unknown name, a factory that cannot be used, or a resolution that does not fit.

    Example:
        >>> get("lenet5").width_names
        ('conv1', 'conv2', 'fc1', 'fc2')
    """
    is_outside = not isinstance(name, str) or is_foreign(name)
    if isinstance(name, str) and (plug_in := OUTSIDE.find(name)) is not None:
        name, is_outside = _plug_in_factory(plug_in), True
    choices = Choices(tuple(inputs), tuple(freeze), dict(multiples or {}), resolution)
    if is_outside and (spec := foreign_spec(name, choices)) is not None:
        return spec
    if inputs or freeze or multiples:
        raise InputError(
            f"'{str(name)[:60]}' has a spec written by hand, which says its inputs and widths; inputs, "
            "freeze and multiples are for networks without one"
        )
    source = factories.name_factory(name) if is_outside else f"zoo:{name}"  # type: ignore[arg-type]
    return replace(_definition(source, resolution).spec, source=source)


def from_module(
    module: nn.Module,
    example_inputs: Any,
    freeze: Sequence[str] = (),
    multiples: Mapping[str, int] | None = None,
) -> NetworkSpec:
    """Return the spec of a torch module, its widths derived from its graph.

    Args:
        module: Any network; it is left as it is.
        example_inputs: What it is called with: a tensor, a tuple of positional arguments, or a
            dictionary of arguments by name; a batch of 1 first.
        freeze: Patterns (`*`, `?`) of widths or module paths that keep their sizes.
        multiples: Pattern of widths to a number that they shall be multiples of.

    Raises:
        InputError: It does not run, cannot be exported, or has no width that may change.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> spec = from_module(net, torch.zeros(1, 4))
        >>> [(width.name, width.max) for width in spec.widths]
        [('w_0', 8)]
    """
    return spec_of_module(module, example_inputs, Choices((), tuple(freeze), dict(multiples or {})))


def build(spec: NetworkSpec, widths: WidthVector, *, allow_code: bool = False) -> nn.Module:
    """Return the torch module that `spec` describes, in eval mode, at the given widths.

    Of a network whose spec was derived from a module in this process, it is that module with the
    first channels of each width, weights and all. Of others, weights are as torch initialises them.
    Their running statistics of batch norms are set to fixed non-trivial values, so that the module
    exports as a trained one does: an exporter that folds a fresh norm (mean 0, variance 1) into the
    convolution before it drops the bias, which is zero.

    Args:
        spec: The network; its `source` says what builds it.
        widths: k ints in channels in order, or a mapping by width name.
        allow_code: Run an outside factory although only the spec, not the user, has named it.

    Raises:
        InputError: The widths do not fit the spec, or the source cannot be resolved or may not be.
    """
    if allow_code:
        factories.allow(spec.source)
    values = spec.check_widths(widths)
    if is_known(spec):
        return _shrunk(spec, values)
    definition = _definition(spec.source, None)
    if definition.spec.width_names != spec.width_names:
        raise InputError(
            f"{spec.source} has the widths {', '.join(definition.spec.width_names)}, but the spec "
            f"'{spec.name}' has {', '.join(spec.width_names)}; get the spec anew from its source"
        )
    sizes = dict(zip(spec.width_names, values, strict=True))
    with factories.users_code(f"the network '{spec.name}' at widths {list(values)}"):
        module = definition.build(spec, sizes)
    if not hasattr(module, "named_modules"):
        raise InputError(
            f"the builder of '{spec.name}' returned a {type(module).__name__}, not a torch module"
        )
    _set_running_statistics(module)
    return module.eval()


def _shrunk(spec: NetworkSpec, values: tuple[int, ...]) -> nn.Module:
    derived = derived_of(spec)
    if derived.graph.module is None:
        raise InputError(
            f"'{spec.name}' comes from an ONNX file and is no torch module; networks.shrink makes its "
            "ONNX model smaller"
        )
    return shrink(derived.graph.module, derived, dict(zip(spec.width_names, values, strict=True)))


def code_fingerprint(source: str) -> str | None:
    """Return the SHA-256 of the files that build the source's network; None if it has no file.

    Raises:
        InputError: The source cannot be resolved.
    """
    if source.startswith("onnx:"):
        return source.partition(":")[2]
    return factories.code_digest(_factory(source))


def is_unchanged_zoo(spec: NetworkSpec) -> bool:
    """Return whether a spec is a registered network as joulemap describes it, bounds aside."""
    scheme, _, name = spec.source.partition(":")
    if scheme != "zoo" or name not in ZOO:
        return False
    for resolution in (None, spec.input_shape[-2:]):
        with contextlib.suppress(InputError):
            own = get(name, resolution)  # type: ignore[arg-type]
            if (own.input_shape, own.layers) == (spec.input_shape, spec.layers):
                return own.width_names == spec.width_names
    return False


def _definition(source: str, resolution: Resolution | None) -> NetworkDefinition:
    factory = _factory(source)
    if resolution is None:
        return factories.call_factory(factory, source)
    if "resolution" not in inspect.signature(factory).parameters:
        raise InputError(f"{source} has a fixed resolution; its function takes no `resolution`")
    sides = (resolution, resolution) if isinstance(resolution, int) else resolution
    if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
        raise InputError(f"resolution is {resolution!r}, not one or two ints >= 1")
    return factories.call_factory(factory, source, resolution=resolution)


def _factory(source: str) -> Factory:
    scheme, _, rest = source.partition(":")
    if scheme == "zoo":
        if rest not in ZOO:
            raise InputError(
                f"there is no network '{rest[:100]}'; known are {', '.join(names())}, or write "
                f"{factories.FORMS} for your own"
            )
        module_name, function_name = ZOO[rest]
        module = importlib.import_module(f".{module_name}", __package__)
        factory: Factory = getattr(module, function_name)
        return factory
    if factories.is_outside(source):
        if not factories.is_named(source):
            _name_if_plug_in(source)
        return factories.factory_of(source)
    raise InputError(
        f"a network of source '{source[:100]}' cannot be built in torch; only zoo:, factory: and "
        "file: can"
    )


def _plug_in_factory(plug_in: PlugIn) -> Factory:
    found = OUTSIDE.load(plug_in)
    if not callable(found):
        raise OUTSIDE.unusable(plug_in, "a function that returns a NetworkDefinition")
    return found


def _name_if_plug_in(source: str) -> None:
    """Let a source be built if an installed package brings it: to install it was to name it."""
    module, _, _ = source.removeprefix(factories.MODULE).partition(":")
    for plug_in in OUTSIDE.all():
        if str(plug_in.target).partition(":")[0].partition(".")[0] == module.partition(".")[0]:
            factories.name_factory(_plug_in_factory(plug_in))


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
