"""A runtime: onnxruntime without a single optimisation. Runs on the device, Python 3.9 and newer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from joulemap.device_agents.onboard.machine import packages

INSTALL = "pip install onnxruntime"


def version() -> str:
    """Return the installed version."""
    return str(packages.onnxruntime().__version__)


class Runtime:
    """Loads ONNX models.

    Args:
        threads: Threads inside one operator.
    """

    def __init__(self, threads: int) -> None:
        self._module = packages.onnxruntime()
        self._options = self._module.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.graph_optimization_level = self._module.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._options.log_severity_level = 3

    def load(self, model: bytes, inputs: dict[str, Any]) -> Callable[[], None]:
        """Return a function that runs the model once on the inputs."""
        session = self._module.InferenceSession(
            model, sess_options=self._options, providers=["CPUExecutionProvider"]
        )

        def call() -> None:
            session.run(None, inputs)

        return call
