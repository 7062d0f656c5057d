"""The process that reads an ONNX file for another one, with limits of time and memory.

A file may hold anything: the parsers and onnxruntime are C++, and may abort or take all memory. The
request comes as JSON on standard input; the answer goes as JSON to standard output, and the graph
into a folder that the request names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import resource
import sys
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

from joulemap import InputError
from joulemap.regular_files import read_bytes
from joulemap.showable_text import showable

from .input_shapes import DTYPES, FORM, InputShape, check_dims, example, with_batch
from .torch_export import MAX_BYTES

# The oldest that onnxruntime runs.
MIN_OPSET = 7
MAX_NODES = 200_000
MAX_SUBGRAPHS = 16
MAX_CALLS = 100
# Seconds of computing for one call of the network, once it has been read; control flow can ask for
# any amount in a few bytes.
RUN_SECONDS, RUN_SECONDS_WITH_LOOPS = 60, 3
LOOPS = {"If", "Loop", "Scan"}
# What one round of folding leaves may be constant only then.
MAX_ROUNDS = 4
# Memory beside ten times the file, where the machine has it: libraries and intermediate results.
MEMORY_BYTES = 6 << 30
# Domains of operators that onnxruntime brings.
KNOWN_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
# Steps of the basic optimisation that move a norm, a scale or a bias into weights, or let layers
# share tensors that happen to be equal.
DISABLED = (
    "CommonSubexpressionElimination",
    "ConstantSharing",
    "ConvAddFusion",
    "ConvBNFusion",
    "ConvMulFusion",
    "MatMulBNFusion",
    "MatMulBatchNormFusion",
)


# What onnxruntime writes before what it says.
_PREFIX = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")


class _UnusableError(Exception):
    """Says what is wrong with the file, as the end of a sentence that begins with its name."""


def main() -> None:
    """Answer the request on standard input, which also says how many seconds it may take (`cpu_s`)."""
    # What libraries print does not get into the answer.
    answer_to = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = json.loads(sys.stdin.read())
    _limit(request)
    json.dump(answer(request), answer_to)
    answer_to.flush()
    # No destructor of a library that has met a hostile file.
    os._exit(0)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return names, shapes and types of a file's inputs, or what is wrong with it as `error`.

    Args:
        request: `path` of the file and its `digest`, the `folder` into which the graph is written,
            `inputs` (names, shapes and types that the user gives) and `batch`.
    """
    try:
        return _answer(request)
    except _UnusableError as error:
        said = str(error)
    except InputError as error:
        said = f"cannot be used: {error}"
    except MemoryError:
        said = "cannot be used: it asks for more memory than it may have"
    except RecursionError:
        said = "cannot be used: its graphs lie too deep inside each other"
    except Exception as error:  # noqa: BLE001 - whatever a library says of the file
        said = f"cannot be used: {_said(error)}"
    return {"error": said}


def _limit(request: dict[str, Any]) -> None:
    size = Path(request["path"]).stat().st_size
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for kind, most in (
        (resource.RLIMIT_AS, min(MEMORY_BYTES + 10 * size, physical)),
        (resource.RLIMIT_CPU, int(request["cpu_s"])),
        (resource.RLIMIT_FSIZE, MAX_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most if hard < 0 else min(most, hard), hard))


def _allow_seconds(more: int) -> None:
    """Let this process compute for some seconds more than it has."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    most = int(used.ru_utime + used.ru_stime) + more
    resource.setrlimit(resource.RLIMIT_CPU, (most if hard < 0 else min(most, hard), hard))


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    import onnx

    path = Path(request["path"])
    try:
        content = read_bytes(path, MAX_BYTES)
        if hashlib.sha256(content).hexdigest() != request["digest"]:
            raise _UnusableError("changed while it was read")
        model = onnx.load_model_from_string(content)
    except OSError as error:
        raise _UnusableError(f"cannot be read: {error}") from error
    except _UnusableError:
        raise
    except Exception as error:
        raise _UnusableError(f"is no ONNX file, or damaged: {_said(error)}") from error
    del content
    _check_versions(model)
    _load_external(model, path.parent)
    model = _inlined(model)
    has_loops = _check_nodes(model)
    shapes = [InputShape(tuple(dims), name, dtype) for name, dims, dtype in request["inputs"]]
    inputs = _fix_inputs(model, shapes, int(request["batch"]))
    for item in model.graph.output:
        # onnxruntime does without the shape, the checker does not; it is computed afterwards.
        if item.type.HasField("tensor_type"):
            item.type.tensor_type.ClearField("shape")
            item.type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(model)
    target = Path(request["folder"]) / "model.onnx"
    session = _fold(model, target)
    if "cpu_s" in request:
        _allow_seconds(RUN_SECONDS_WITH_LOOPS if has_loops else RUN_SECONDS)
    zeros = _run(session, inputs)
    return {"inputs": inputs, "zeros": zeros}


# -- what the file says ----------------------------------------------------------------------------


def _check_versions(model: Any) -> None:
    import onnx

    opsets = {item.domain: item.version for item in model.opset_import}
    if not model.HasField("graph") or not len(model.graph.node):
        raise _UnusableError("is no ONNX file: it holds no operators")
    if not len(model.graph.output):
        raise _UnusableError("has no outputs")
    version = opsets.get("", opsets.get("ai.onnx"))
    newest = onnx.defs.onnx_opset_version()
    if version is None:
        raise _UnusableError("names no opset of ONNX's own operators")
    if version < MIN_OPSET:
        raise _UnusableError(
            f"is of opset {version}, and onnxruntime runs {MIN_OPSET} and newer; convert it with "
            "onnx.version_converter"
        )
    if version > newest:
        raise _UnusableError(
            f"is of opset {version}, and the installed onnx knows {newest} at most; export it with an "
            "older opset, or install a newer onnx"
        )


def _inlined(model: Any) -> Any:
    import onnx
    from onnx import inliner

    if not len(model.functions):
        return model
    if _expanded(model) > MAX_NODES:
        raise _UnusableError(
            f"has functions that call each other for more than {MAX_NODES} operators"
        )
    inlined = inliner.inline_local_functions(model)
    if not isinstance(inlined, onnx.ModelProto) or len(inlined.functions):
        raise _UnusableError("has functions that cannot be put in place of their calls")
    return inlined


def _expanded(model: Any) -> int:
    """Return how many operators there are once each call of a function is what it calls."""
    functions = {(item.domain, item.name): item for item in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(nodes: Any, depth: int) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in functions:
                if depth > MAX_CALLS:
                    raise _UnusableError("has functions that call themselves, or too deep a chain")
                if key not in sizes:
                    sizes[key] = size(functions[key].node, depth + 1)
                total += sizes[key]
            total += 1
        return total

    return size(model.graph.node, 0)


def _graphs(graph: Any, depth: int = 0) -> Iterator[Any]:
    """Yield a graph and the graphs inside its nodes."""
    if depth > MAX_SUBGRAPHS:
        raise RecursionError
    yield graph
    for node in graph.node:
        for item in node.attribute:
            for inner in (*([item.g] if item.HasField("g") else []), *item.graphs):
                yield from _graphs(inner, depth + 1)


def _check_nodes(model: Any) -> bool:
    """Return whether there is control flow.

    Raises:
        _UnusableError: There are too many operators, or unknown ones.
    """
    import onnx

    versions = {item.domain: item.version for item in model.opset_import}
    own = versions.get("", versions.get("ai.onnx", 0))
    seen = set()
    count = 0
    for graph in _graphs(model.graph):
        count += len(graph.node)
        if count > MAX_NODES:
            raise _UnusableError(f"has more than {MAX_NODES} operators")
        if len(graph.sparse_initializer):
            raise _UnusableError("has sparse tensors, which templates cannot hold")
        seen |= {(node.domain, node.op_type) for node in graph.node}
    for domain, operator in sorted(seen):
        if domain not in KNOWN_DOMAINS:
            raise _UnusableError(
                f"has the custom operator {showable(f'{domain}.{operator}', 80)}, which onnxruntime "
                "does not bring"
            )
        if domain in ("", "ai.onnx"):
            try:
                onnx.defs.get_schema(operator, own, "")
            except Exception as error:
                raise _UnusableError(
                    f"has the operator {showable(operator, 80)}, which is none of ONNX in opset {own}"
                ) from error
    return not LOOPS.isdisjoint(operator for _, operator in seen)


# -- external data ---------------------------------------------------------------------------------


def _load_external(model: Any, folder: Path) -> None:
    """Put the data of tensors that lie in other files into the graph."""
    total = 0
    files: dict[str, bytes] = {}
    for tensor in _tensors(model):
        n_bytes = _tensor_bytes(tensor)
        if tensor.data_location == tensor.EXTERNAL:
            total += n_bytes
            if total > MAX_BYTES:
                raise _UnusableError(
                    "has more than 2 GB of external data, and a graph holds no more"
                )
            tensor.raw_data = _external(tensor, n_bytes, folder, files)
            del tensor.external_data[:]
            tensor.data_location = tensor.DEFAULT


def _tensors(model: Any) -> Iterator[Any]:
    for graph in _graphs(model.graph):
        yield from graph.initializer
        for node in graph.node:
            for item in node.attribute:
                if item.HasField("t"):
                    yield item.t
                yield from item.tensors
    for function in model.functions:
        for node in function.node:
            for item in node.attribute:
                if item.HasField("t"):
                    yield item.t
                yield from item.tensors


def _tensor_bytes(tensor: Any) -> int:
    import onnx

    name = showable(tensor.name, 80)
    if any(dim < 0 for dim in tensor.dims) or len(tensor.dims) > MAX_SUBGRAPHS:
        raise _UnusableError(f"has the tensor '{name}' with an impossible shape")
    count = prod(tensor.dims)
    if count > MAX_BYTES:
        raise _UnusableError(f"has the tensor '{name}' of more than 2 GB")
    try:
        size = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except Exception as error:
        raise _UnusableError(f"has the tensor '{name}' of an unknown type") from error
    return int(count) * int(size)


def _external(tensor: Any, n_bytes: int, folder: Path, files: dict[str, bytes]) -> bytes:
    name = showable(tensor.name, 80)
    entries = {item.key: item.value for item in tensor.external_data}
    location = entries.get("location", "")
    shown = showable(location, 80)
    parts = Path(location).parts
    if not location or Path(location).is_absolute() or ".." in parts or "\0" in location:
        raise _UnusableError(
            f"keeps the tensor '{name}' in '{shown}', which is not beside it; external data lies in "
            "the folder of the file"
        )
    place = folder / location
    if not place.resolve().is_relative_to(folder.resolve()):
        raise _UnusableError(f"keeps the tensor '{name}' in '{shown}', a link out of its folder")
    if location not in files:
        try:
            files[location] = read_bytes(place, MAX_BYTES)
        except OSError as error:
            raise _UnusableError(
                f"keeps the tensor '{name}' in '{shown}', which cannot be read: {error.strerror}"
            ) from error
    content = files[location]
    try:
        offset = int(entries.get("offset", "0") or 0)
        length = int(entries.get("length", "") or n_bytes)
    except ValueError as error:
        raise _UnusableError(f"says no place of the tensor '{name}' in '{shown}'") from error
    if length != n_bytes or offset < 0 or offset + length > len(content):
        raise _UnusableError(
            f"keeps the tensor '{name}' ({n_bytes} bytes) in '{shown}', which is shorter or says "
            "another length; it was damaged or belongs to another file"
        )
    return content[offset : offset + length]


# -- shapes ----------------------------------------------------------------------------------------


def _fix_inputs(
    model: Any, shapes: Sequence[InputShape], batch: int
) -> list[tuple[str, list[int], str]]:
    """Give every input a shape of numbers; return names, shapes and types."""
    import onnx

    graph = model.graph
    initializers = {item.name for item in graph.initializer}
    inputs = [item for item in graph.input if item.name not in initializers]
    # Old files list weights as inputs too, so that callers could replace them.
    del graph.input[:]
    graph.input.extend(inputs)
    if not inputs:
        raise _UnusableError("has no inputs")
    inputs = list(graph.input)
    model.ir_version = max(model.ir_version, 4)
    given = _by_name(shapes, [item.name for item in inputs])
    symbols: dict[str, int] = {}
    found: list[tuple[str, list[int], str]] = []
    for item in inputs:
        shown = showable(item.name, 80)
        if item.type.WhichOneof("value") != "tensor_type":
            raise _UnusableError(f"has the input '{shown}', which is no tensor")
        if item.name in given:
            _take_symbols(item, given[item.name], symbols)
    for item in inputs:
        tensor = item.type.tensor_type
        shown = showable(item.name, 80)
        try:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        except Exception as error:
            raise _UnusableError(f"has the input '{shown}' of an unknown type") from error
        if dtype not in (*DTYPES, "float16"):
            kind = "text" if dtype == "object" else dtype
            raise _UnusableError(
                f"has the input '{shown}' of type {kind}, which cannot be measured"
            )
        shape = given.get(item.name)
        if shape is not None and shape.dtype not in (None, dtype):
            raise _UnusableError(f"has the input '{shown}' of type {dtype}, not {shape.dtype}")
        dims = _dims(item, shape, symbols, batch)
        check_dims(tuple(dims), f"the input '{shown}'")
        tensor.ClearField("shape")
        tensor.shape.SetInParent()  # A scalar has a shape too.
        for dim in dims:
            tensor.shape.dim.add().dim_value = dim
        found.append((item.name, dims, dtype))
    first, dims, _ = found[0]
    if batch != 1 and dims and dims[0] != batch:
        raise _UnusableError(
            f"is made for a batch of {dims[0]} (its input '{showable(first, 80)}' is "
            f"{_shape_text(dims)}), not of {batch}; export it with an open first size"
        )
    return found


def _by_name(shapes: Sequence[InputShape], names: list[str]) -> dict[str, InputShape]:
    known = ", ".join(names)
    if len(shapes) == 1 and shapes[0].name is None:
        if len(names) != 1:
            raise _UnusableError(
                f"has the inputs {showable(known, 150)}: say which one has the shape, {FORM}"
            )
        return {names[0]: shapes[0]}
    given = {str(shape.name): shape for shape in shapes}
    if unknown := [name for name in given if name not in names]:
        raise _UnusableError(
            f"has no input '{showable(unknown[0], 80)}'; its inputs are {showable(known, 150)}"
        )
    return given


def _declared(item: Any) -> list[int | str | None] | None:
    """Return the sizes that a file says: numbers, names, or None; None for no shape at all."""
    tensor = item.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [
        int(dim.dim_value)
        if dim.HasField("dim_value") and dim.dim_value > 0
        else _name(dim.dim_param)
        for dim in tensor.shape.dim
    ]


def _name(text: str) -> str | None:
    """Return what a size is called, None for texts such as `?`, which some files give to all."""
    return text if any(map(str.isalnum, text)) else None


def _take_symbols(item: Any, shape: InputShape, symbols: dict[str, int]) -> None:
    declared = _declared(item)
    if declared is None:
        return
    shown = showable(item.name, 80)
    agrees = len(declared) == len(shape.dims) and all(
        not isinstance(size, int) or size == dim
        for size, dim in zip(declared, shape.dims, strict=True)
    )
    if not agrees:
        raise _UnusableError(
            f"has the input '{shown}' of shape {_shape_text(declared)}, not "
            f"{'x'.join(map(str, shape.dims)) or 'scalar'}"
        )
    for size, dim in zip(declared, shape.dims, strict=True):
        if isinstance(size, str) and symbols.setdefault(size, dim) != dim:
            raise _UnusableError(
                f"has one size '{showable(size, 40)}' of its inputs, given as {symbols[size]} and {dim}"
            )


def _dims(item: Any, shape: InputShape | None, symbols: dict[str, int], batch: int) -> list[int]:
    declared = _declared(item)
    shown = showable(item.name, 80)
    if declared is None:
        if shape is None:
            raise _UnusableError(
                f"does not say the shape of its input '{shown}'; give it: --input {shown}=..., such as "
                f"--input {shown}=1x3x224x224"
            )
        return list(with_batch(shape.dims, batch, item.name))
    if shape is not None:
        dims = list(shape.dims)
        if dims and not isinstance(declared[0], int):
            dims = list(with_batch(shape.dims, batch, item.name))
        return dims
    sizes = [symbols.get(size, size) if isinstance(size, str) else size for size in declared]
    if sizes and not isinstance(sizes[0], int) and all(isinstance(size, int) for size in sizes[1:]):
        sizes[0] = batch
    if any(not isinstance(size, int) for size in sizes):
        suggestion = "x".join(str(size) if isinstance(size, int) else "?" for size in sizes)
        raise _UnusableError(
            f"leaves the shape of its input '{shown}' open ({_shape_text(declared)}); give it: --input "
            f"{shown}={suggestion} with numbers for the question marks"
        )
    return [int(size) for size in sizes if isinstance(size, int)]


def _shape_text(declared: Sequence[int | str | None]) -> str:
    return (
        showable("x".join("?" if size is None else str(size) for size in declared), 80) or "scalar"
    )


# -- onnxruntime -----------------------------------------------------------------------------------


def _fold(model: Any, target: Path) -> Any:
    """Write the graph with its constants computed; return onnxruntime's session of it.

    Raises:
        _UnusableError: onnxruntime does not take it.
    """
    import onnx
    import onnxruntime

    del model.graph.value_info[:]
    for item in model.graph.output:
        if item.type.HasField("tensor_type"):
            item.type.tensor_type.ClearField("shape")
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    for _ in range(MAX_ROUNDS):
        n_nodes = len(model.graph.node)
        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=list(DISABLED),
            )
        except Exception as error:
            raise _UnusableError(f"cannot be run by onnxruntime: {_said(error)}") from error
        model = onnx.load_model_from_string(read_bytes(target, MAX_BYTES))
        _tidy(model)
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        if len(model.graph.node) >= n_nodes:
            break
    onnx.save_model(model, str(target))
    return session


def _run(session: Any, inputs: list[tuple[str, list[int], str]]) -> bool:
    """Run the network once; return whether its integer inputs must be zeros.

    Raises:
        _UnusableError: It fails.
    """
    import numpy as np

    feeds = {name: example(tuple(dims), dtype, name) for name, dims, dtype in inputs}
    zeros = {
        name: np.zeros_like(value) if value.dtype.kind in "iu" else value
        for name, value in feeds.items()
    }
    has_integers = any(value.dtype.kind in "iu" for value in feeds.values())
    for is_zero, values in ((False, feeds), (True, zeros))[: 1 + has_integers]:
        try:
            session.run(None, values)
        except Exception as error:  # noqa: BLE001 - onnxruntime has no class of its own for all
            failure = error
        else:
            return is_zero
    raise _UnusableError(f"fails in onnxruntime at these shapes: {_said(failure)}")


def _tidy(model: Any) -> None:
    """Take away the opsets that onnxruntime adds and no node uses."""
    used = {node.domain for graph in _graphs(model.graph) for node in graph.node} | {""}
    kept = [item for item in model.opset_import if item.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _said(error: BaseException) -> str:
    text = _PREFIX.sub("", " ".join(str(error).split()))
    return showable(text or type(error).__name__, 200)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
