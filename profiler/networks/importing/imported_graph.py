"""A network of a user as one ONNX graph: what the width space is derived from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx
    from torch import nn


@dataclass(frozen=True)
class ImportedGraph:
    """A network as one ONNX graph in which every shape is a number, with inputs that run it.

    Attributes:
        name: Short, made of letters, digits and `_`.
        source: Where it comes from, as in a spec: `file:PATH.py:fn@SHA256`, `factory:module:fn`,
            `timm:NAME`, `torchvision:NAME`, `hf:CLASS` or `onnx:SHA256`.
        model: The graph. Functions are inlined, integers that do not depend on inputs are
            initializers, and weights lie inside. Of a torch module, parameters and buffers are the
            initializers whose names are paths of its state.
        inputs: An example of each input of the graph by its name, batch included.
        module: The torch module in eval mode, a copy of the user's; None for an ONNX file.
    """

    name: str
    source: str
    model: onnx.ModelProto
    inputs: Mapping[str, NDArray[np.generic]]
    module: nn.Module | None = None
