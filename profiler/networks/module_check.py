"""Whether a spec is the network that its factory builds: layers, sizes, parameters, calls, MACs.

A forward pass shows which modules ran, how often, on what sizes. What ran outside of modules is
compared by what can be seen of it: its operations, how much they wrote, their MACs.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from joulemap import InputError

from ...datasets import NetworkSpec, ResolvedLayer
from ...datasets.network_spec import WidthVector
from .factories import users_code
from .forward_pass import Call, ForwardPass, Operation, Shape, parameter_paths, run_forward
from .registry import build

NUM_RANDOM = 2
# Names and values of users stand in messages up to this length.
MAX_SHOWN = 60

# What torch's own modules can be in a spec. Others may be of any kind.
_KINDS: tuple[tuple[tuple[type[nn.Module], ...], str | None], ...] = (
    ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), "conv_transpose"),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), "conv"),
    ((nn.Linear,), "linear"),
    ((nn.GRU,), "recurrent"),
    ((nn.RNNBase, nn.RNNCellBase), None),
    ((nn.Embedding,), "embedding"),
    ((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm), "norm"),
    ((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), "norm"),
    ((nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d), "pool"),
    ((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d), "pool"),
    ((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d), "pool"),
    ((nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softmax), "activation"),
)
_WITH_MACS = ("conv", "conv_transpose", "linear", "matmul", "recurrent")
# What an operation outside of modules may be called, by the kind of the layer that it is.
_OPERATIONS: dict[str, tuple[str, ...]] = {
    "norm": ("norm",),
    "concat": ("cat", "stack"),
    "pool": ("pool", "mean", "max", "amax", "sum"),
    "add": ("add", "sub", "mul", "div", "maximum", "minimum"),
    "embedding": ("embedding", "add", "index"),
}
# Windows that the module states as the spec does, by kind; some modules have strings instead.
_WINDOWS = {
    "conv": ("kernel_size", "stride", "padding", "dilation"),
    "conv_transpose": ("kernel_size", "stride", "padding", "dilation", "output_padding"),
    "pool": ("kernel_size", "stride", "padding"),
}


def check_module(spec: NetworkSpec) -> None:
    """Compare a spec with what its source builds, at the largest, the smallest and random widths.

    Args:
        spec: A network that `networks.build` can build.

    Raises:
        InputError: They are not the same network: the message names the layer and both values.
    """
    for widths in _vectors(spec):
        found = difference(spec, widths, _built(spec, widths))
        if found is not None:
            shown = ", ".join(map(str, widths))
            raise InputError(
                f"the spec of {_shown(spec.name)} is not its network: {found} (widths "
                f"{_shown(shown)}); mend the spec or the module, nothing was measured"
            )


def difference(
    spec: NetworkSpec, widths: WidthVector, ran: tuple[nn.Module, ForwardPass], batch: int = 1
) -> str | None:
    """Return the first difference between a spec and a module that ran, None if there is none."""
    module, seen = ran
    network = spec.at(widths, batch=batch)
    layers = {layer.name: layer for layer in network.layers}
    calls: dict[str, list[Call]] = {}
    for call in seen.calls:
        calls.setdefault(call.path, []).append(call)
    # What layers without a module of their name may be.
    loose: list[Call | Operation] = list(seen.operations)
    unnamed: list[ResolvedLayer] = []
    for path, made in calls.items():
        layer = layers.get(path)
        if layer is not None and (len(made) == 1 or _has_parameters(made[0].module)):
            if len(made) > 1:
                return (
                    f"'{_shown(path)}' is called {len(made)} times in a forward pass, and the spec "
                    "lists it once: its multiply-accumulates and traffic count each time"
                )
            if (found := _compare(layer, made[0])) is not None:
                return found
        elif _has_parameters(made[0].module) or any(call.macs for call in made):
            kind = type(made[0].module).__name__
            return (
                f"the module '{_shown(path)}' ({kind}) runs, and no layer of the spec is named so"
            )
        else:
            loose += made
    for layer in layers.values():
        if len(calls.get(layer.name, ())) == 1:
            continue
        unnamed.append(layer)
    if (found := _parameters(layers, module)) is not None:
        return found
    # Any operation may be an activation, so these choose last.
    for layer in sorted(unnamed, key=lambda layer: layer.kind == "activation"):
        if (found := _take(layer, loose)) is not None:
            return found
    if (left := next((item for item in loose if isinstance(item, Call)), None)) is not None:
        times = len(calls[left.path])
        listed = "once" if left.path in layers else "not at all"
        return (
            f"'{_shown(left.path)}' ({type(left.module).__name__}) is called {times} times, and the "
            f"spec lists it {listed}"
            if times > 1
            else f"the module '{_shown(left.path)}' ({type(left.module).__name__}) runs, and no layer "
            "of the spec is named so"
        )
    if network.macs != seen.macs:
        return (
            f"its layers have {network.macs:,} multiply-accumulates in all, the forward pass "
            f"{seen.macs:,}, some of them outside of the modules"
        )
    return None


# -- one layer -------------------------------------------------------------------------------------


def _compare(layer: ResolvedLayer, call: Call) -> str | None:
    """Return how a layer differs from the one call of its module."""
    module, name = call.module, f"'{_shown(layer.name)}'"
    for types, kind in _KINDS:
        if isinstance(module, types):
            if kind != layer.kind:
                return (
                    f"layer {name} is of kind {layer.kind}, and the module is a "
                    f"{type(module).__name__}" + ("" if kind else ", which no kind describes")
                )
            break
    for what, mine, theirs in _values(layer, call):
        if mine != theirs:
            return (
                f"{what} of layer {name} is {_shown(mine)} in the spec, {_shown(theirs)} in torch"
            )
    return None


def _values(layer: ResolvedLayer, call: Call) -> Iterable[tuple[str, Any, Any]]:
    """Yield what is compared, as the spec has it and as torch has it."""
    module = call.module
    parameters = sum(item.numel() for item in module.parameters())
    yield "the number of parameters", layer.params, parameters
    for name in _WINDOWS.get(layer.kind, ()):
        theirs = _pair(getattr(module, name, None), fill=0 if "padding" in name else 1)
        if theirs is not None and hasattr(layer, name):
            yield name, getattr(layer, name), theirs
    if layer.kind in ("conv", "conv_transpose") and hasattr(module, "groups"):
        yield "groups", layer.groups, module.groups
    if layer.kind in ("concat", "add"):
        elements = sum(math.prod(shape) for shape in call.inputs)
        yield "the number of input elements", layer.input_elements, elements
    elif layer.kind != "embedding" and call.inputs:
        expected = _shapes(layer, layer.in_channels, layer.in_size, call.inputs[0], module)
        yield "the input shape", *_shape_pair(expected, call.inputs[0])
    expected = _shapes(layer, layer.out_channels, layer.out_size, call.output, module)
    yield "the output shape", *_shape_pair(expected, call.output)
    yield "the number of multiply-accumulates", layer.macs, call.macs


def _shape_pair(expected: Sequence[Shape], found: Shape) -> tuple[Shape, Shape]:
    return (found if found in expected else expected[0], found)


def _shapes(
    layer: ResolvedLayer, channels: int, size: tuple[int, int], found: Shape, module: nn.Module
) -> list[Shape]:
    """Return the shapes that such a tensor may have, the usual one of so many sides first."""
    batch, area = layer.batch, size[0] * size[1]
    vectors = layer.positions * area
    if isinstance(module, nn.RNNBase):
        sides = (batch, vectors) if module.batch_first else (vectors, batch)
        return [(*sides, channels)]
    if len(found) == 4:
        return [(batch, channels, *size), (batch, *size, channels)]
    if len(found) == 3:
        return [(batch, vectors, channels), (batch, channels, vectors)]
    if len(found) == 2:
        return [(batch, channels * vectors), (batch * vectors, channels)]
    # Whatever the module makes of it: as many elements.
    elements = batch * channels * vectors
    return [found if math.prod(found) == elements else (batch, channels * vectors)]


def _pair(value: Any, fill: int) -> tuple[int, int] | None:
    """Return a module's window setting as height and width; None if it is no number."""
    parts = (value, value) if isinstance(value, int) else value
    if not isinstance(parts, tuple) or not all(isinstance(part, int) for part in parts):
        return None
    if len(parts) == 1:
        return (fill, parts[0])
    return (parts[0], parts[1]) if len(parts) == 2 else None


# -- what has no module of its own -----------------------------------------------------------------


def _take(layer: ResolvedLayer, loose: list[Call | Operation]) -> str | None:
    """Take what a layer without a module is out of what ran; say so if nothing did."""
    own = [item for item in loose if isinstance(item, Call) and item.path == layer.name]
    for item in own + [item for item in loose if item not in own]:
        elements = math.prod(item.output) if isinstance(item, Call) else item.elements
        if layer.kind in _WITH_MACS:
            is_it = item.macs > 0 and item.macs == layer.macs
        else:
            is_it = not item.macs and elements == layer.output_elements and _may_be(layer, item)
        if is_it:
            loose.remove(item)
            return None
    size = f"{layer.output_elements:,} elements"
    if layer.kind in _WITH_MACS:
        size = f"{layer.macs:,} multiply-accumulates"
    return (
        f"layer '{_shown(layer.name)}' ({layer.kind}, {size}) does not run: no module of that path "
        "is called, and no operation outside of modules is of that kind and size"
    )


def _may_be(layer: ResolvedLayer, item: Call | Operation) -> bool:
    if isinstance(item, Call):
        kinds = [kind for types, kind in _KINDS if isinstance(item.module, types)]
        return not kinds or kinds[0] == layer.kind
    words = _OPERATIONS.get(layer.kind)
    return words is None or any(word in item.name for word in words)


# -- parameters ------------------------------------------------------------------------------------


def _parameters(layers: dict[str, ResolvedLayer], module: nn.Module) -> str | None:
    """Return a parameter that no layer has or that two have, or a layer whose parameters are not there."""
    held = dict.fromkeys(layers, 0)
    for parameter, paths in parameter_paths(module):
        owners = {_owner(path, layers): path for path in paths}
        owners.pop(None, None)
        if not owners:
            return (
                f"the parameter '{_shown(paths[0])}' ({parameter.numel():,} numbers) belongs to no "
                "layer of the spec"
            )
        if len(owners) > 1:
            first, second = list(owners.values())[:2]
            return (
                f"'{_shown(first)}' and '{_shown(second)}' are one parameter, and the spec counts it "
                "for both layers"
            )
        (name,) = owners
        held[str(name)] += parameter.numel()
    for name, layer in layers.items():
        if layer.params != held[name]:
            return (
                f"layer '{_shown(name)}' has {layer.params:,} parameters in the spec, "
                f"{held[name]:,} in the module"
            )
    return None


def _owner(path: str, layers: dict[str, ResolvedLayer]) -> str | None:
    """Return the layer that a parameter belongs to: `fc` has `fc.weight`, `in` has `in_weight`."""
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        if (name := ".".join(parts[:length])) in layers:
            return name
    for end in ("_weight", "_bias"):
        if path.endswith(end) and (name := path.removesuffix(end)) in layers:
            return name
    return None


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


# -- building --------------------------------------------------------------------------------------


def _vectors(spec: NetworkSpec) -> list[tuple[int, ...]]:
    """Return the width vectors to compare at: ends, equal widths, random ones, each once."""
    draw = random.Random(spec.fingerprint)  # noqa: S311 - reproducible, not secret
    vectors = [spec.max_widths, spec.min_widths]
    if spec.widths:
        # Branches that modules take where two widths are equal.
        level = min(spec.max_widths)
        level = max(level, max(spec.min_widths))
        vectors.append(
            tuple(
                max(width.min, min(level, width.max) // width.multiple * width.multiple)
                for width in spec.widths
            )
        )
    vectors += [
        tuple(draw.randrange(width.min, width.max + 1, width.multiple) for width in spec.widths)
        for _ in range(NUM_RANDOM)
    ]
    return list(dict.fromkeys(vectors))


def _built(spec: NetworkSpec, widths: tuple[int, ...]) -> tuple[nn.Module, ForwardPass]:
    """Return the module and its forward pass: shapes alone where it can do without values."""
    what = f"the network '{spec.name}' at widths {list(widths)}"
    with contextlib.suppress(Exception), users_code(what):
        return run_at(spec, widths, "meta")
    # Some modules need values; and what goes wrong is told as it is with them.
    with users_code(what):
        return run_at(spec, widths, "cpu")


def run_at(
    spec: NetworkSpec, widths: WidthVector, device: str, batch: int = 1
) -> tuple[nn.Module, ForwardPass]:
    """Return the module that a spec's source builds, and its forward pass.

    Args:
        spec: A network that `networks.build` can build.
        widths: Its widths in channels.
        device: Where torch runs it; `meta` finds shapes without computing.
        batch: Samples per call.
    """
    with torch.device(device):
        module = build(spec, widths)
        sample = torch.zeros(batch, *spec.input_shape)
        if spec.layers[0].kind == "embedding":
            sample = sample.long()
    return module, run_forward(module, sample, [layer.name for layer in spec.layers])


def _shown(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
