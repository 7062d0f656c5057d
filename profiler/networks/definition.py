"""What a zoo file or an outside factory returns: a network as data and as a torch module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ...datasets import NetworkSpec

if TYPE_CHECKING:
    from torch import nn

Builder: TypeAlias = "Callable[[NetworkSpec, Mapping[str, int]], nn.Module]"
Resolution: TypeAlias = int | tuple[int, int]


@dataclass(frozen=True)
class NetworkDefinition:
    """A network as data, and the function that builds it in torch at given widths.

    Attributes:
        spec: The network. Every layer's name is the path of the torch module that it describes.
        build: `build(spec, widths)` returns the module. `spec` may have another input shape and
            other width bounds than the attribute above, so sizes come from the arguments.
            Whatever it returns is put in eval mode and its batch norms get non-trivial statistics.
    """

    spec: NetworkSpec
    build: Builder


@dataclass(frozen=True)
class ModuleDefinition:
    """A torch module that comes without a spec: its width space is derived from its graph.

    Attributes:
        module: The network.
        example_inputs: What it can be called with: a tensor, a tuple of positional arguments, or a
            dictionary of arguments by name, batch included. None where its maker says nothing.
    """

    module: nn.Module
    example_inputs: Any = None
