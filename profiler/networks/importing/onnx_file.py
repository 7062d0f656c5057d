"""Reads ONNX files of users: any opset since 7, whole or with external data, hostile or not."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from joulemap import InputError
from joulemap.regular_files import read_bytes
from joulemap.showable_text import showable

from .imported_graph import ImportedGraph
from .input_shapes import InputShape, example, parse_inputs
from .torch_export import MAX_BYTES, identifier

if TYPE_CHECKING:
    import onnx

# Beside what a file of any size gets: seconds of computing, and seconds for each gigabyte.
CPU_SECONDS, CPU_SECONDS_PER_GB = 10, 60
# Seconds of waiting on a machine that does other things too.
WAIT_SECONDS = 300
_PROGRAM = f"{__package__}.onnx_child"
_SIGNALS = {
    signal.SIGXCPU: "takes too long to read: its graph asks for an absurd amount of computing",
    signal.SIGKILL: "cannot be read: it asks for more time or memory than there is",
}


def import_onnx(
    path: str | os.PathLike[str],
    *,
    shapes: Iterable[str | InputShape] = (),
    batch: int = 1,
) -> ImportedGraph:
    """Return the graph of an ONNX file, every shape a number.

    The file is read, checked, folded and run once in a process of its own, with limits of time and
    memory: what a file asks for cannot take the caller down. Constants are computed by onnxruntime's
    basic optimisation; convolutions and norms stay apart. External data is read from the file's
    folder and nowhere else.

    Args:
        path: The file.
        shapes: Shapes of inputs, as `parse_input` reads them; those that the file leaves open must
            be given. A first size that is left open is the batch.
        batch: Samples per call.

    Raises:
        InputError: The file cannot be read, is not what onnxruntime runs, or leaves a shape open.
    """
    given = parse_inputs(shapes)
    shown = showable(os.fspath(path), 80)
    try:
        content = read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise InputError(f"cannot read the ONNX file {shown}: {error.strerror or error}") from error
    digest = hashlib.sha256(content).hexdigest()
    size = len(content)
    del content
    with tempfile.TemporaryDirectory(prefix="onnx-") as folder:
        request = {
            "path": str(Path(path).absolute()),
            "folder": folder,
            "digest": digest,
            "batch": batch,
            "inputs": [[item.name, list(item.dims), item.dtype] for item in given],
            "cpu_s": CPU_SECONDS + CPU_SECONDS_PER_GB * size // (1 << 30),
        }
        answer = _read_apart(request, shown)
        model = _parsed(Path(folder) / "model.onnx", shown)
    examples = {
        name: example(tuple(dims), dtype, name).reshape(dims)
        for name, dims, dtype in answer["inputs"]
    }
    if answer["zeros"]:
        examples = {
            name: np.zeros_like(value) if value.dtype.kind in "iu" else value
            for name, value in examples.items()
        }
    return ImportedGraph(identifier(Path(path).stem), f"onnx:{digest}", model, examples)


def _read_apart(
    request: dict[str, object], shown: str
) -> dict[str, list[tuple[str, list[int], str]]]:
    """Return what the process that reads the file says of it.

    Raises:
        InputError: It says what is wrong, or ends without an answer.
    """
    command = [sys.executable, "-P", "-m", _PROGRAM]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=WAIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"the ONNX file {shown} takes too long to read") from error
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        why = _SIGNALS.get(
            signal.Signals(-done.returncode) if done.returncode < 0 else signal.SIGABRT,
            "cannot be read: onnx or onnxruntime crashes on it",
        )
        raise InputError(f"the ONNX file {shown} {why}") from error
    if "error" in answer:
        raise InputError(f"the ONNX file {shown} {answer['error']}")
    return dict(answer)


def _parsed(file: Path, shown: str) -> onnx.ModelProto:
    import onnx

    try:
        return onnx.load_model_from_string(read_bytes(file, MAX_BYTES))
    except OSError as error:
        raise InputError(f"the ONNX file {shown} cannot be used: {error}") from error
