"""Exports a torch module as it is: nothing merged, folded into weights or renamed."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import logging
import random
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from joulemap import InputError

from .. import factories
from .folding import fold
from .imported_graph import ImportedGraph

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

# A tensor, positional arguments, or arguments by name.
ExampleInputs: TypeAlias = "torch.Tensor | Sequence[Any] | Mapping[str, Any]"

# What one ONNX file holds at most; protobuf allows no more.
MAX_BYTES = (1 << 31) - (1 << 20)
MAX_DEPTH = 20


def import_module(
    module: nn.Module, example_inputs: ExampleInputs, *, name: str, source: str
) -> ImportedGraph:
    """Return a torch module as a graph, at the shapes of its example inputs.

    The caller's module is left as it is: a copy in eval mode is exported. Initializers are named by
    the paths of parameters and buffers; nodes keep the modules they were traced in
    (`pkg.torch.onnx.name_scopes`). Outputs may lie in tuples, dictionaries or dataclasses: those
    that are tensors become the graph's outputs.

    Args:
        module: On the CPU, in float32 or float64.
        example_inputs: A tensor, a tuple of positional arguments, or a dictionary of arguments by
            name, batch included.
        name: What the network is called.
        source: Where it comes from, as in a spec.

    Raises:
        InputError: The module cannot be copied, does not run on these inputs, or cannot be exported.

    Example:
        >>> import torch
        >>> linear = torch.nn.Linear(3, 2)
        >>> graph = import_module(linear, torch.ones(1, 3), name="own", source="factory:own:net")
        >>> [item.name for item in graph.model.graph.initializer]
        ['weight', 'bias']
    """
    import torch

    _check_module(module, name)
    args, kwargs = _arguments(example_inputs)
    with _unchanged_random_state(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = _copied(module, name).eval()
        with _flat_outputs(exported, name):
            with factories.users_code(f"the network '{name}' on {_shapes(args, kwargs)}"):
                exported(*copy.deepcopy(args), **copy.deepcopy(kwargs))
            with factories.users_code(f"the export of '{name}' to ONNX"), quiet_exporter():
                program = torch.export.export(exported, args, kwargs, strict=False)
                onnx_program = torch.onnx.export(program, (), optimize=False, verbose=False)
                if onnx_program is None:
                    raise InputError(f"torch exported nothing for '{name}'")
                fold(onnx_program.model, _float_paths(exported))
                model = onnx_program.model_proto
    inputs = _graph_inputs(program, model, name)
    return ImportedGraph(identifier(name), source, model, inputs, exported)


def identifier(text: str) -> str:
    """Return a text as letters, digits and `_`, at most 60, to be used as a name.

    Example:
        >>> identifier("my-net.v2")
        'my_net_v2'
    """
    name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_")[:60]
    return name if name and not name[0].isdigit() else f"net_{name}".rstrip("_")


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keep back what torch's exporter prints and logs, on which users cannot act."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.filterwarnings(
                "ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning
            )
            yield
    finally:
        logger.setLevel(level)


def _check_module(module: nn.Module, name: str) -> None:
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(
            f"'{name}' is a TorchScript module, which cannot be exported; give the torch module that "
            "it was made of"
        )
    n_bytes = 0
    for path, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if torch.nn.parameter.is_lazy(tensor):
            raise InputError(
                f"'{name}' has the lazy parameter '{path[:80]}' without a shape; call the network "
                "once before you return it"
            )
        if tensor.device.type != "cpu":
            raise InputError(
                f"'{path[:80]}' of '{name}' is on the device '{tensor.device}'; return the network on "
                "the CPU"
            )
        if tensor.dtype in (torch.float16, torch.bfloat16):
            raise InputError(
                f"'{path[:80]}' of '{name}' is {str(tensor.dtype).removeprefix('torch.')}; return the "
                "network in float32 (module.float()) and choose the number format with --precision"
            )
        n_bytes += tensor.numel() * tensor.element_size()
    if n_bytes > MAX_BYTES:
        raise InputError(
            f"'{name}' has {n_bytes / 1e9:.1f} GB of parameters; an ONNX graph holds 2 GB at most"
        )


def _copied(module: nn.Module, name: str) -> nn.Module:
    # torch.compile wraps a module in another one.
    module = getattr(module, "_orig_mod", module)
    with factories.users_code(f"a copy of the network '{name}'"):
        copied: nn.Module = copy.deepcopy(module)
    return copied


def _float_paths(module: nn.Module) -> set[str]:
    """Return the paths of the parameters and buffers that hold real numbers."""
    tensors = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    return {path for path, tensor in tensors if tensor.is_floating_point()}


def _arguments(example_inputs: ExampleInputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    import torch

    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, Mapping):
        return (), {str(key): value for key, value in example_inputs.items()}
    if isinstance(example_inputs, tuple | list):
        return tuple(example_inputs), {}
    raise InputError(
        f"example inputs are a {type(example_inputs).__name__}, not a tensor, a tuple of arguments or "
        "a dictionary of arguments by name"
    )


def _shapes(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return the shapes of arguments, for a sentence."""
    shown = [_shape(value) for value in args]
    shown += [f"{key}={_shape(value)}" for key, value in kwargs.items()]
    return f"inputs of shape {', '.join(shown)}"[:120] if shown else "no inputs"


def _shape(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else "x".join(map(str, shape)) or "scalar"


@contextlib.contextmanager
def _unchanged_random_state() -> Iterator[None]:
    import torch

    python, legacy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


# -- outputs ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _flat_outputs(module: nn.Module, name: str) -> Iterator[None]:
    """Let a module return a tuple of the tensors that it returns in whatever it returns."""
    forward: Callable[..., Any] = module.forward
    own = vars(module).get("forward")

    @functools.wraps(forward)
    def flat(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        found = tuple(tensors_in(forward(*args, **kwargs)))
        if not found:
            raise InputError(f"the network '{name}' returns no tensor")
        return found

    vars(module)["forward"] = flat
    try:
        yield
    finally:
        if own is None:
            del vars(module)["forward"]
        else:
            vars(module)["forward"] = own


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in what a module returns, in the order of the graph's outputs."""
    return _tensors(value, MAX_DEPTH)


def _tensors(value: Any, depth: int) -> Iterator[torch.Tensor]:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif depth and isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item, depth - 1)
    elif depth and isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item, depth - 1)
    elif depth and is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name), depth - 1)


# -- inputs ----------------------------------------------------------------------------------------


def _graph_inputs(
    program: torch.export.ExportedProgram, model: onnx.ModelProto, name: str
) -> dict[str, NDArray[np.generic]]:
    """Return the example of each input of the graph, in the graph's order."""
    import torch
    from torch.utils import _pytree

    leaves = _pytree.tree_leaves(program.example_inputs)
    names = program.graph_signature.user_inputs
    examples = {
        str(key): np.array(leaf.detach().numpy())
        for key, leaf in zip(names, leaves, strict=True)
        if isinstance(leaf, torch.Tensor)
    }
    inputs = [item.name for item in model.graph.input]
    if missing := [item for item in inputs if item not in examples]:
        raise InputError(
            f"the export of '{name}' has the input '{missing[0][:80]}', which is no tensor among the "
            "example inputs"
        )
    return {item: examples[item] for item in inputs}
