"""onnxruntime on the CPU."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..onboard import layer_times
from ..onboard.machine import packages


def version() -> str:
    """Return the installed version.

    Raises:
        ImportError: It is not installed.
    """
    return str(packages.onnxruntime().__version__)


class Runtime:
    """Loads ONNX models with a fixed number of threads.

    Args:
        threads: Threads inside one operator. Operators run one after another.
    """

    def __init__(self, threads: int) -> None:
        self._module = packages.onnxruntime()
        self._threads = threads
        self._options = self._session_options()

    def _session_options(self) -> Any:
        options = self._module.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.execution_mode = self._module.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        return options

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

    def profiler(self, model: bytes, inputs: dict[str, Any]) -> Profiler:
        """Return the model loaded with onnxruntime's profiler, whose times are whole microseconds.

        Args:
            model: A serialised ONNX model.
            inputs: Input name to array.
        """
        return Profiler(self._module, self._session_options(), model, inputs)


class Profiler:
    """Runs a model and says what each node took.

    Args:
        module: onnxruntime.
        options: Of the session; changed.
        model: A serialised ONNX model.
        inputs: Input name to array.
    """

    def __init__(self, module: Any, options: Any, model: bytes, inputs: dict[str, Any]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="joulemap-")
        self._graph = Path(self._folder.name, "optimised.onnx")
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(self._folder.name, "trace"))
        options.optimized_model_filepath = str(self._graph)
        self._session = module.InferenceSession(
            model, sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._inputs = inputs
        self._runs = 0

    def run(self) -> None:
        """Run the model once."""
        self._session.run(None, self._inputs)
        self._runs += 1

    def finish(self) -> tuple[list[float], list[dict[str, Any]]]:
        """Return seconds of each run so far, and the nodes that ran, each with `times_s`.

        Raises:
            TraceError: The profiler's files do not say what each node took.
        """
        trace = Path(self._session.end_profiling())
        text = trace.read_text(encoding="utf-8", errors="replace")
        whole, times = layer_times.read_trace(text, self._runs)
        return whole, layer_times.join(layer_times.read_nodes(self._graph.read_bytes()), times)

    def close(self) -> None:
        """Remove the profiler's files."""
        self._folder.cleanup()
