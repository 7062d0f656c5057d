"""Specs of networks that nobody wrote one for, derived once and kept for the next time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joulemap import InputError
from joulemap.regular_files import read_bytes

from ....datasets import NetworkSpec
from ...cache import cache_folder, keep, read_kept
from .. import factories
from ..definition import ModuleDefinition, NetworkDefinition, Resolution
from ..importing import (
    ImportedGraph,
    import_definition,
    import_module,
    import_onnx,
    parse_inputs,
    short_name,
)
from .derive import derive, source_of_graph
from .known import Importer, remember, remember_importer

if TYPE_CHECKING:
    from torch import nn

# Of the solver and the layers: specs that an older one derived are derived anew.
DERIVATION = 1
ONNX = ".onnx"
MAX_ONNX_BYTES = 1 << 31


@dataclass(frozen=True)
class Choices:
    """What a user chooses of a derived network.

    Attributes:
        inputs: Shapes of its inputs, `NAME=1x3x224x224[:dtype]`.
        freeze: Patterns of widths or module paths that keep their sizes.
        multiples: Pattern of widths to a number that they shall be multiples of.
        resolution: Height and width of the first input, if it is an image.
    """

    inputs: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    multiples: Mapping[str, int] = field(default_factory=dict)
    resolution: Resolution | None = None

    @property
    def shapes(self) -> tuple[str, ...]:
        """Shapes of inputs, the resolution among them.

        Raises:
            InputError: Both are given.
        """
        if self.resolution is None:
            return self.inputs
        if self.inputs:
            raise InputError("write either the resolution or the shapes of inputs, not both")
        size = self.resolution
        height, width = (size, size) if isinstance(size, int) else size
        return (f"1x3x{height}x{width}",)


def foreign_spec(network: object, choices: Choices) -> NetworkSpec | None:
    """Return the derived spec of what a user names; None of a factory that has a spec of its own.

    Args:
        network: A name or a function, as `networks.get` takes it.
        choices: What the user chooses of it.

    Raises:
        InputError: There is no such network, or its widths cannot be derived.
    """
    if _is_onnx(network):
        path = Path(network)  # type: ignore[arg-type]
        try:
            source = f"onnx:{sha256(read_bytes(path, MAX_ONNX_BYTES)).hexdigest()}"
        except OSError as error:
            raise InputError(f"cannot read the network {str(path)[:80]}: {error}"[:300]) from error
        shapes = choices.shapes

        def at(batch: int) -> ImportedGraph:
            return import_onnx(path, shapes=shapes, batch=batch)

        if (spec := _kept(source, source, choices)) is not None:
            remember_importer(source, at)
            return spec
        return _derived(source, source, choices, at)
    source = factories.name_factory(network)  # type: ignore[arg-type]
    factory = factories.factory_of(source)
    digest = factories.code_digest(factory)
    if digest is not None and (spec := _kept(source, digest, choices)) is not None:
        remember_importer(source, _importer(source, factory, choices, None))
        return spec
    made = factories.call_any_factory(factory, source)
    if isinstance(made, NetworkDefinition):
        return None
    return _derived(source, digest, choices, _importer(source, factory, choices, made))


def spec_of_module(module: nn.Module, example_inputs: Any, choices: Choices) -> NetworkSpec:
    """Return the derived spec of a torch module that only exists in this process.

    Args:
        module: The network.
        example_inputs: What it is called with, a batch of 1 first.
        choices: What the user chooses of it.

    Raises:
        InputError: It does not run, or its widths cannot be derived.
    """
    name = type(module).__name__

    def at(batch: int) -> ImportedGraph:
        inputs = example_inputs if batch == 1 else _repeated(example_inputs, batch)
        return import_module(module, inputs, name=name, source="onnx:")

    graph = at(1)
    source = source_of_graph(graph)
    derived = derive(
        replace(graph, source=source), freeze=choices.freeze, multiples=choices.multiples
    )
    remember(derived, at)
    return derived.spec


def _is_onnx(network: object) -> bool:
    return isinstance(network, os.PathLike) or (
        isinstance(network, str) and network.lower().endswith(ONNX)
    )


def _importer(
    source: str, factory: Callable[..., Any], choices: Choices, made: ModuleDefinition | None
) -> Importer:
    shapes = parse_inputs(choices.shapes)
    name = short_name(source)

    def at(batch: int) -> ImportedGraph:
        definition = made or factories.call_any_factory(factory, source)
        if isinstance(definition, NetworkDefinition):
            raise InputError(f"'{name}' returned a module before, and now a NetworkDefinition")
        return import_definition(definition, shapes, name=name, source=source, batch=batch)

    return at


def _derived(source: str, digest: str | None, choices: Choices, importer: Importer) -> NetworkSpec:
    """Return the spec of a network that was not kept, and keep it where its code has a digest."""
    derived = derive(importer(1), freeze=choices.freeze, multiples=choices.multiples)
    remember(derived, importer)
    if digest is not None:
        content = derived.spec.to_json().encode()
        keep(cache_folder("specs"), _name(source, digest, choices), content)
    return derived.spec


def _kept(source: str, digest: str, choices: Choices) -> NetworkSpec | None:
    content = read_kept(cache_folder("specs"), _name(source, digest, choices))
    if content is None:
        return None
    try:
        spec = NetworkSpec.from_json(content)
    except InputError:
        return None
    return spec if spec.source == source else None


def _name(source: str, digest: str, choices: Choices) -> str:
    versions = [f"{name} {version(name)}" for name in ("joulemap", "torch", "onnx", "onnxscript")]
    key = [
        DERIVATION,
        source,
        digest,
        list(choices.shapes),
        list(choices.freeze),
        sorted(choices.multiples.items()),
        *versions,
    ]
    return f"{sha256(json.dumps(key).encode()).hexdigest()}.json"


def _repeated(inputs: Any, batch: int) -> Any:
    """Return example inputs of one sample as those of a batch."""
    if isinstance(inputs, Mapping):
        return {name: _repeated(value, batch) for name, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(_repeated(value, batch) for value in inputs)
    if getattr(inputs, "ndim", 0) and inputs.shape[0] == 1:
        return inputs.repeat(batch, *([1] * (inputs.ndim - 1)))
    return inputs
