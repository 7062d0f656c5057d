"""onnxruntime on the CPU."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..onboard import layer_times


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

    def profile(
        self, model: bytes, inputs: dict[str, Any], num_runs: int
    ) -> tuple[list[float], list[dict[str, Any]]]:
        """Return seconds of each run, and the nodes that the runtime ran, each with `times_s`.

        By onnxruntime's profiler, whose times are whole microseconds.

        Args:
            model: A serialised ONNX model.
            inputs: Input name to array.
            num_runs: Runs that are kept, after a third as many that are not.

        Raises:
            TraceError: The profiler's files do not say what each node took.
        """
        with tempfile.TemporaryDirectory(prefix="joulemap-") as folder:
            options = self._session_options()
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder, "trace"))
            options.optimized_model_filepath = str(Path(folder, "optimised.onnx"))
            session = self._module.InferenceSession(
                model, sess_options=options, providers=["CPUExecutionProvider"]
            )
            for _ in range(num_runs + max(1, num_runs // 3)):
                session.run(None, inputs)
            trace = session.end_profiling()
            text = Path(trace).read_text(encoding="utf-8", errors="replace")
            whole, times = layer_times.read_trace(text, num_runs)
            nodes = layer_times.read_nodes(Path(folder, "optimised.onnx").read_bytes())
        return whole, layer_times.join(nodes, times)
