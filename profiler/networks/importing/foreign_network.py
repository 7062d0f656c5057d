"""Any network that a user names or hands over, as one ONNX graph."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from joulemap import InputError
from joulemap.showable_text import showable

from .. import factories
from ..definition import ModuleDefinition, NetworkDefinition
from ..packages import PackageNetwork
from .example_inputs import example_inputs
from .imported_graph import ImportedGraph
from .input_shapes import InputShape, parse_inputs
from .onnx_file import import_onnx
from .torch_export import import_module

if TYPE_CHECKING:
    from torch import nn

ONNX = ".onnx"
FORMS = f"{factories.FORMS}, FILE.onnx, timm:NAME, torchvision:NAME or hf:CONFIG_CLASS"


def is_foreign(name: object) -> bool:
    """Return whether something names or is a network of a user, and not one of joulemap's.

    Example:
        >>> [is_foreign(name) for name in ("lenet5", "timm:resnet50", "net.onnx", "own.py:net")]
        [False, True, True, True]
    """
    if isinstance(name, os.PathLike) or callable(name):
        return True
    return isinstance(name, str) and (
        ":" in name or name.endswith(".py") or name.lower().endswith(ONNX)
    )


def import_network(
    network: str | os.PathLike[str] | Callable[..., Any] | nn.Module,
    *,
    inputs: Iterable[str | InputShape] = (),
    batch: int = 1,
) -> ImportedGraph:
    """Return a network as a graph, with the example inputs that its maker, its kind or the user says.

    Code runs because it is named here, and from now on specs with this source may be built (see
    `factories`). Nothing is downloaded.

    Args:
        network: `module:function` or `FILE.py:function`, which returns a torch module, a tuple of a
            module and its example inputs, or a NetworkDefinition (at its largest widths);
            `timm:NAME`, `torchvision:NAME` or `hf:CONFIG_CLASS` of those packages; an ONNX file;
            such a function itself, or a torch module.
        inputs: Shapes as `parse_input` reads them: `NAME=1x3x224x224[:dtype]`, or `1x3x224x224` for
            the only or first input. They win over what the network says of itself.
        batch: Samples per call. Inputs that begin with 1 begin with it.

    Raises:
        InputError: There is no such network, it fails, or its inputs are not known.
    """
    from torch import nn

    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise InputError(f"batch is {batch!r}, not an int >= 1")
    shapes = parse_inputs(inputs)
    if isinstance(network, nn.Module):
        kind = type(network)
        source = f"{factories.MODULE}{kind.__module__}:{kind.__qualname__}"
        made = ModuleDefinition(network)
        return import_definition(made, shapes, name=kind.__name__, source=source, batch=batch)
    if isinstance(network, os.PathLike) or (
        isinstance(network, str) and network.lower().endswith(ONNX)
    ):
        return import_onnx(network, shapes=shapes, batch=batch)
    if isinstance(network, str) and not is_foreign(network):
        raise InputError(f"'{showable(network, 80)}' names no network of your own; write {FORMS}")
    source = factories.name_factory(network)
    factory = factories.factory_of(source)
    definition = factories.call_any_factory(factory, source)
    name = short_name(source)
    if isinstance(definition, NetworkDefinition):
        definition = _at_largest(definition, name)
    return import_definition(definition, shapes, name=name, source=source, batch=batch)


def import_definition(
    made: ModuleDefinition,
    shapes: tuple[InputShape, ...],
    *,
    name: str,
    source: str,
    batch: int,
) -> ImportedGraph:
    """Return what a factory made as a graph.

    Args:
        made: A torch module, and what it says that it is called with.
        shapes: Shapes of inputs that the user gives; they win.
        name: What the network is called.
        source: Where it comes from, as in a spec.
        batch: Samples per call.

    Raises:
        InputError: The module cannot be exported, or its inputs are not known.
    """
    examples = example_inputs(made.module, shapes, made.example_inputs, name=name, batch=batch)
    return import_module(made.module, examples, name=name, source=source)


def _at_largest(definition: NetworkDefinition, name: str) -> ModuleDefinition:
    """Return what a definition builds at its largest widths, with its spec's input."""
    import torch

    spec = definition.spec
    widths = dict(zip(spec.width_names, spec.max_widths, strict=True))
    with factories.users_code(f"the network '{name}' at widths {list(spec.max_widths)}"):
        module = definition.build(spec, widths)
    is_index = spec.layers[0].kind == "embedding"
    dtype = torch.int64 if is_index else torch.float32
    return ModuleDefinition(module, torch.zeros(1, *spec.input_shape, dtype=dtype))


def short_name(source: str) -> str:
    """Return what a network of a source is called.

    Example:
        >>> [short_name(each) for each in ("file:own.py:net@00", "hf:BertConfig", "timm:resnet50")]
        ['net', 'Bert', 'resnet50']
    """
    name = source.partition("@")[0].rpartition(":")[2]
    if PackageNetwork.is_one(source):
        return name.partition(".")[0].removesuffix("Config")
    return name.rpartition(".")[2]
