"""Smaller copies of networks: channels taken out of weights, statistics and optimiser state.

    kept ─► what stays of each axis ─► tensors sliced ─► sizes in the modules ─► proof

The proof: the smaller module computes what its graph computes at these widths, or is exported as the
same operators with the same shapes. Without it, nothing is returned.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from joulemap import InputError

from ....datasets import NetworkSpec
from ..importing import import_module
from ..importing.torch_export import quiet_exporter, tensors_in
from .channel_groups import Kept, Staying, indices_of, staying_places
from .derive import DerivedNetwork
from .known import derived_of
from .module_sizes import Guess, changes_of, groups_of, guesses, resize, set_heads
from .shrunk_onnx import shrunk_onnx, weights_of

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

# Numbers of users' modules that may or may not be sizes: so many of them are tried one by one.
MAX_TRIES = 128
# Largest difference between a module and its graph, of its largest output.
TOLERANCE = 1e-3
# Sizes that an operator is given as integers: at most so many.
MAX_NUMBERS = 64


@overload
def shrink(
    module: nn.Module, spec: NetworkSpec | DerivedNetwork, kept: Kept, *, optimizer: None = None
) -> nn.Module: ...
@overload
def shrink(
    module: nn.Module,
    spec: NetworkSpec | DerivedNetwork,
    kept: Kept,
    *,
    optimizer: torch.optim.Optimizer,
) -> tuple[nn.Module, torch.optim.Optimizer]: ...
@overload
def shrink(
    module: onnx.ModelProto,
    spec: NetworkSpec | DerivedNetwork,
    kept: Kept,
    *,
    optimizer: None = None,
) -> onnx.ModelProto: ...


def shrink(
    module: nn.Module | onnx.ModelProto,
    spec: NetworkSpec | DerivedNetwork,
    kept: Kept,
    *,
    optimizer: torch.optim.Optimizer | None = None,
) -> nn.Module | onnx.ModelProto | tuple[nn.Module, torch.optim.Optimizer]:
    """Return a smaller copy of a network: what does not stay is taken out of every tensor.

    Its outputs are those of the network with these channels set to zero, to float rounding, where
    no normalisation mixes channels and none scales with their number (layer and group norms do,
    and attention whose head size changes).

    Args:
        module: The network that the spec was derived from, with any weights; it stays as it is.
            In training mode or not, on any device. Or its ONNX model.
        spec: The network's spec, or the derived network.
        kept: By width: indices of the channels that stay, a mask over its channels, or how many,
            from the first. Widths that are not named stay whole. Where groups of a convolution
            share a width, the indices name one channel of each group, as `channel_groups` has them.
        optimizer: Of the module: returned too, for the new parameters, its moments made smaller.

    Returns:
        The smaller module, or it and its optimizer; of an ONNX model, a smaller one.

    Raises:
        InputError: This is not the network of the spec, an index is none of a width, or a module
            holds a size that cannot be set.
    """
    from onnx import ModelProto
    from torch import nn

    derived = derived_of(spec)
    staying = staying_places(derived, kept)
    if isinstance(module, ModelProto):
        if optimizer is not None:
            raise InputError("an ONNX model has no optimizer; shrink the torch module instead")
        return shrunk_onnx(derived, staying, weights_of(derived, module))
    if not isinstance(module, nn.Module):
        raise InputError(
            f"a {type(module).__name__} cannot be made smaller; give a torch module or an "
            "onnx.ModelProto"
        )
    memo: dict[int, Any] = {}
    smaller: nn.Module = copy.deepcopy(module, memo)
    own = copy.deepcopy(optimizer, memo)
    _slice(smaller, derived, staying, own)
    _fit(smaller, derived, staying)
    return smaller if own is None else (smaller, own)


# -- tensors ---------------------------------------------------------------------------------------


def _slice(
    module: nn.Module,
    derived: DerivedNetwork,
    staying: Staying,
    optimizer: torch.optim.Optimizer | None,
) -> None:
    from torch import nn

    solution = derived.space.solution
    state: dict[str, torch.Tensor] = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    paths: dict[int, list[str]] = {}
    for path, tensor in state.items():
        paths.setdefault(id(tensor), []).append(path)
    done: set[int] = set()
    paths_of_network = _state_of(derived)
    for name in solution.parameters():
        indices = indices_of(solution.axes[name], staying)
        shape = solution.tensors.shapes[name]
        if name not in state:
            if name in paths_of_network:
                raise InputError(
                    f"the module has no '{name[:80]}', which the network '{derived.spec.name}' has"
                )
            continue
        tensor = state[name]
        if tuple(tensor.shape) != shape:
            raise InputError(
                f"'{name[:80]}' has the shape {tuple(tensor.shape)} and not {shape} as in the network "
                f"'{derived.spec.name}'; shrink the whole network, not one that is smaller already"
            )
        if not indices or id(tensor) in done:
            continue
        done.add(id(tensor))
        new = _taken(tensor.detach(), indices)
        if isinstance(tensor, nn.Parameter):
            parameter = nn.Parameter(new, requires_grad=tensor.requires_grad)
            if tensor.grad is not None:
                parameter.grad = _taken(tensor.grad, indices)
            if optimizer is not None:
                _replace(optimizer, tensor, parameter, indices, name)
            new = parameter
        for path in paths[id(tensor)]:
            owner, _, leaf = path.rpartition(".")
            setattr(module.get_submodule(owner), leaf, new)


def _state_of(derived: DerivedNetwork) -> set[str]:
    module = derived.graph.module
    if module is None:
        return set()
    return {name for name, _ in [*module.named_parameters(), *module.named_buffers()]}


def _taken(tensor: torch.Tensor, indices: Mapping[int, np.ndarray[Any, Any]]) -> torch.Tensor:
    import torch

    for axis, own in indices.items():
        tensor = tensor.index_select(axis, torch.from_numpy(own).to(tensor.device))
    return tensor.clone()


def _replace(
    optimizer: torch.optim.Optimizer,
    old: nn.Parameter,
    new: nn.Parameter,
    indices: Mapping[int, np.ndarray[Any, Any]],
    name: str,
) -> None:
    """Let an optimizer hold a smaller parameter, with what it knows of the old one."""
    import torch

    for group in optimizer.param_groups:
        group["params"] = [new if item is old else item for item in group["params"]]
    if old not in optimizer.state:
        return
    state = optimizer.state.pop(old)
    for key, value in state.items():
        if isinstance(value, torch.Tensor) and value.numel() > 1:
            if value.shape != old.shape:
                raise InputError(
                    f"'{key}' in the state of {type(optimizer).__name__} for '{name[:80]}' has another "
                    "shape than the parameter, so that it cannot be made smaller; start a new optimizer"
                )
            state[key] = _taken(value, indices)
    optimizer.state[new] = state


# -- sizes in the modules --------------------------------------------------------------------------


def _fit(module: nn.Module, derived: DerivedNetwork, staying: Staying) -> None:
    """Set the sizes that modules hold, until the module is what the spec says.

    Raises:
        InputError: It does not become that.
    """
    solution = derived.space.solution
    set_heads(module, solution, staying)
    resize(module, groups_of(solution, staying))
    modes = [(item, item.training) for item in module.modules()]
    module.eval()
    try:
        proof = _Proof(derived, staying, module)
        if proof.problem() is None:
            return
        found = list(guesses(module, changes_of(solution, staying)))
        for guess in found:
            if guess.is_sure:
                _set(module, guess, guess.after)
        problem = proof.problem()
        for guess in [guess for guess in found if not guess.is_sure][:MAX_TRIES]:
            if problem is None:
                return
            _set(module, guess, guess.after)
            again = proof.problem()
            if again is not None and again[0] == problem[0]:
                _set(module, guess, guess.before)  # no step further
            else:
                problem = again
        if problem is not None:
            where = f"'{problem[0][:80]}' ({problem[1]})" if problem[0] else problem[1]
            raise InputError(
                f"{derived.spec.name} cannot be made smaller: a size in {where} does not "
                f"follow the widths: {problem[2]}; compute it from the input's shape, or freeze the "
                "width"
            )
    finally:
        for item, mode in modes:
            item.training = mode


def _set(module: nn.Module, guess: Guess, value: Any) -> None:
    setattr(module.get_submodule(guess.path), guess.attribute, value)


class _Proof:
    """Says where a smaller module does not compute what its graph does."""

    def __init__(self, derived: DerivedNetwork, staying: Staying, module: nn.Module) -> None:
        self.derived = derived
        self.module = module
        draw = np.random.default_rng(0)
        self.inputs = {
            name: draw.standard_normal(value.shape).astype(value.dtype)
            if value.dtype.kind == "f"
            else value
            for name, value in derived.graph.inputs.items()
        }
        state = [*module.named_parameters(), *module.named_buffers()]
        self.graph = shrunk_onnx(
            derived,
            staying,
            {name: value.detach().cpu().numpy() for name, value in state if _is_plain(value)},
        )
        self.is_plain = all(
            value.device.type == "cpu" and _is_plain(value)
            for _, value in state
            if value.is_floating_point()
        )
        self.expected: list[np.ndarray[Any, Any]] | None = None

    def problem(self) -> tuple[str, str, str] | None:
        """Return a module's path, its type and what is wrong there, None if nothing is."""
        import torch

        module = self.module if self.is_plain else copy.deepcopy(self.module).cpu().float()
        at = ["", type(module).__name__]
        names = {id(item): (path, type(item).__name__) for path, item in module.named_modules()}
        stack: list[tuple[str, str]] = []
        handles = []
        for item in module.modules():
            handles += [
                item.register_forward_pre_hook(lambda own, _: stack.append(names[id(own)])),
                item.register_forward_hook(lambda *_: stack.pop() and None),
            ]
        tensors = {name: torch.from_numpy(value.copy()) for name, value in self.inputs.items()}
        try:
            with torch.no_grad():
                written = [item.numpy() for item in tensors_in(_called(module, tensors))]
        except Exception as error:  # noqa: BLE001 - what users' modules raise where sizes clash
            path, kind = stack[-1] if stack else at
            return path, kind, " ".join(str(error).split())[:120]
        finally:
            for handle in handles:
                handle.remove()
        if self._is_expected(written) or self._is_same_graph(module, tensors):
            return None
        return "", at[1], "it computes something else than its graph at these widths"

    def _is_expected(self, written: list[np.ndarray[Any, Any]]) -> bool:
        import onnxruntime

        if self.expected is None:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
            content = self.graph.SerializeToString()
            session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
            self.expected = session.run(None, self.inputs)
        if [item.shape for item in written] != [item.shape for item in self.expected]:
            return False
        return all(
            np.allclose(
                mine,
                own,
                rtol=0,
                atol=TOLERANCE * (np.abs(own).max(initial=0) + 1e-6),
                equal_nan=True,
            )
            for mine, own in zip(written, self.expected, strict=True)
            if own.size
        )

    def _is_same_graph(self, module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Return whether the module is exported as the same operators on the same shapes."""
        try:
            with quiet_exporter():
                inputs = _arguments(module, tensors)
                found = import_module(module, inputs, name="smaller", source="factory:own:smaller")
        except InputError:
            return False
        return _are_alike(found.model, self.graph)


def _are_alike(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    """Return whether two graphs have the same operators, sizes and shapes of weights."""
    left, right = _outline(one), _outline(other)
    if len(left) != len(right):
        return False
    return all(
        name == name_other
        and len(sizes) == len(sizes_other)
        and all(a == b or -1 in (a, b) for a, b in zip(sizes, sizes_other, strict=True))
        for (name, sizes), (name_other, sizes_other) in zip(left, right, strict=True)
    )


def _outline(model: onnx.ModelProto) -> list[tuple[str, list[int]]]:
    """Return the operators of a graph with the integers they are given, and its weights' shapes."""
    from onnx import helper, numpy_helper

    numbers = {
        item.name: np.ravel(numpy_helper.to_array(item)).tolist()
        for item in model.graph.initializer
        if item.data_type in (6, 7) and prod(item.dims) <= MAX_NUMBERS
    }
    found = []
    for node in model.graph.node:
        sizes = [number for name in node.input for number in numbers.get(name, [])]
        for item in sorted(node.attribute, key=lambda item: item.name):
            if item.type in (2, 7):
                sizes += np.ravel(helper.get_attribute_value(item)).tolist()
        found.append((node.op_type, sizes))
    weights = [
        (item.name, list(item.dims))
        for item in model.graph.initializer
        if item.data_type in (1, 11) and len(item.dims) > 0
    ]
    return [*found, *sorted(weights)]


def _is_plain(value: torch.Tensor) -> bool:
    import torch

    return value.dtype in (torch.float32, torch.float64)


def _arguments(
    module: nn.Module, tensors: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor] | tuple[torch.Tensor, ...]:
    """Return the inputs of a graph as the module takes them: by name, if it has these names."""
    import inspect

    known = inspect.signature(module.forward).parameters
    return dict(tensors) if all(name in known for name in tensors) else tuple(tensors.values())


def _called(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> Any:
    found = _arguments(module, tensors)
    return module(**found) if isinstance(found, dict) else module(*found)
