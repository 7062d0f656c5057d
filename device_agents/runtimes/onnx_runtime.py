"""onnxruntime on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def version() -> str:
    """Return the installed version.

    Raises:
        ImportError: It is not installed.
    """
    import onnxruntime

    return str(onnxruntime.__version__)


class Runtime:
    """Loads ONNX models with a fixed number of threads.

    Args:
        threads: Threads inside one operator. Operators run one after another.
    """

    def __init__(self, threads: int) -> None:
        import onnxruntime

        self._module = onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        self._options = options

    def load(self, model: bytes, inputs: dict[str, Any]) -> Callable[[], None]:
        """Return a function that runs the model once on the inputs.

        Args:
            model: A serialised ONNX model.
            inputs: Input name to array.
        """
        session = self._module.InferenceSession(
            model, sess_options=self._options, providers=["CPUExecutionProvider"]
        )
        run = session.run
        outputs = [output.name for output in session.get_outputs()]

        def call() -> None:
            run(outputs, inputs)

        return call
