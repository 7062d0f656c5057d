"""A classifier of sequences by two gated recurrent units (GRU), with 2 prunable widths."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ...datasets import NetworkSpec, Width
from .definition import NetworkDefinition, Resolution
from .spec_builder import SpecBuilder

# Coefficients of one second of speech in steps of 20 ms, as in 'Hello Edge' (Zhang et al., 2017).
POSITIONS, FEATURES = 49, 10
NUM_CLASSES = 12
MAX_WIDTH = 256


def gru(resolution: Resolution = (POSITIONS, FEATURES)) -> NetworkDefinition:
    """Return the network for spoken commands of 12 classes.

    `resolution` is the number of positions and of features at each, as in a spectrogram.

    `hidden1` and `hidden2` are the widths of the two recurrent layers; a linear layer reads what
    the second one writes at the last position.
    """
    shape = (resolution, resolution) if isinstance(resolution, int) else resolution
    widths = [Width("hidden1", MAX_WIDTH), Width("hidden2", MAX_WIDTH)]
    net = SpecBuilder("gru", shape, widths)
    net.recurrent("gru1", "hidden1")
    net.recurrent("gru2", "hidden2")
    net.last_position()
    net.linear("classifier", NUM_CLASSES)
    return NetworkDefinition(net.spec(), _build)


class _Gru(nn.Module):
    def __init__(self, features: int, hidden1: int, hidden2: int) -> None:
        super().__init__()
        self.gru1 = nn.GRU(features, hidden1, batch_first=True)
        self.gru2 = nn.GRU(hidden1, hidden2, batch_first=True)
        self.classifier = nn.Linear(hidden2, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.gru1(x)
        x, _ = self.gru2(x)
        result: Tensor = self.classifier(x[:, -1])
        return result


def _build(spec: NetworkSpec, widths: Mapping[str, int]) -> nn.Module:
    return _Gru(spec.input_shape[1], widths["hidden1"], widths["hidden2"])
