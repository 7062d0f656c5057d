"""A classifier of sequences: two gated recurrent units and a linear layer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ...datasets import NetworkSpec, Width
from .definition import NetworkDefinition
from .spec_builder import SpecBuilder

NUM_STEPS = 98
NUM_FEATURES = 40
NUM_CLASSES = 12
MAX_HIDDEN = 154


def gru() -> NetworkDefinition:
    """Return a keyword spotter: 98 frames of 40 features, two GRU layers, 12 classes.

    The size is that of the large GRU of Zhang et al., "Hello Edge", 2017, in two layers.
    """
    net = SpecBuilder(
        "gru",
        (NUM_STEPS, NUM_FEATURES),
        [Width("hidden1", MAX_HIDDEN), Width("hidden2", MAX_HIDDEN)],
    )
    net.recurrent("gru1", "hidden1")
    net.recurrent("gru2", "hidden2")
    net.last()
    net.linear("classifier", NUM_CLASSES)
    return NetworkDefinition(net.spec(), _build)


class _Classifier(nn.Module):
    """Reads the last state of the second layer."""

    def __init__(self, features: int, hidden1: int, hidden2: int) -> None:
        super().__init__()
        self.gru1 = nn.GRU(features, hidden1, batch_first=True)
        self.gru2 = nn.GRU(hidden1, hidden2, batch_first=True)
        self.classifier = nn.Linear(hidden2, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.gru1(x)
        states, _ = self.gru2(states)
        result: Tensor = self.classifier(states[:, -1])
        return result


def _build(spec: NetworkSpec, widths: Mapping[str, int]) -> nn.Module:
    return _Classifier(spec.input_shape[1], widths["hidden1"], widths["hidden2"])
