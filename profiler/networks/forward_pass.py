"""What runs in one forward pass of a torch module: modules, operations outside of them, MACs."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Shape: TypeAlias = tuple[int, ...]
# Modules that cost nothing at inference, so a spec need not list them.
FREE_MODULES = (
    nn.Flatten,
    nn.Unflatten,
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)


@dataclass(frozen=True)
class Call:
    """One call of a module that a spec lists, or of one without parts.

    Attributes:
        path: The module's path; of one with several paths that which the spec lists.
        module: The module.
        inputs: Shapes of the tensors that it read.
        output: Shape of the (first) tensor that it wrote.
        macs: Multiply-accumulates in it, without those of listed modules inside.
    """

    path: str
    module: nn.Module
    inputs: tuple[Shape, ...]
    output: Shape
    macs: int


@dataclass(frozen=True)
class Operation:
    """One operation of the forward pass itself, outside of the modules in calls.

    Attributes:
        name: What torch calls it, such as `add` or `convolution`.
        elements: How many it wrote.
        macs: Multiply-accumulates.
    """

    name: str
    elements: int
    macs: int


@dataclass(frozen=True)
class ForwardPass:
    """What ran.

    Attributes:
        calls: Calls of modules, in the order of their ends.
        operations: Operations outside of them, without those that only look at tensors.
    """

    calls: tuple[Call, ...]
    operations: tuple[Operation, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole pass."""
        return sum(call.macs for call in self.calls) + sum(item.macs for item in self.operations)


def run_forward(
    module: nn.Module, sample: torch.Tensor, listed: Collection[str] = ()
) -> ForwardPass:
    """Return what runs when the module reads a sample; nothing of the module is changed.

    Args:
        module: The module, in eval mode.
        sample: What it reads; on the `meta` device shapes are found without computing.
        listed: Paths of modules that are to be told as wholes, even if they have parts.
    """
    watch = _Watch(_paths(module, listed))
    with contextlib.ExitStack() as stack:
        stack.enter_context(_unfused())
        stack.enter_context(torch.no_grad())
        for child in watch.paths:
            for handle in (
                child.register_forward_pre_hook(watch.enter, with_kwargs=True),
                child.register_forward_hook(watch.leave, with_kwargs=True),
            ):
                stack.callback(handle.remove)
        with watch:
            module(sample)
    return ForwardPass(tuple(watch.calls), tuple(watch.operations))


def parameter_paths(module: nn.Module) -> list[tuple[nn.Parameter, list[str]]]:
    """Return every parameter once, with all the paths that lead to it."""
    found: dict[int, tuple[nn.Parameter, list[str]]] = {}
    for path, parameter in module.named_parameters(remove_duplicate=False):
        found.setdefault(id(parameter), (parameter, []))[1].append(path)
    return list(found.values())


@contextlib.contextmanager
def _unfused() -> Iterator[None]:
    """Have attention and encoders computed by the operations that they consist of."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


def _paths(module: nn.Module, listed: Collection[str]) -> dict[nn.Module, str]:
    """Return the modules whose calls are told, by path."""
    found: dict[nn.Module, list[str]] = {}
    for path, child in module.named_modules(remove_duplicate=False):
        found.setdefault(child, []).append(path)
    names = set(listed)
    told = {}
    for child, paths in found.items():
        wanted = [path for path in paths if path in names]
        if wanted:
            told[child] = wanted[0]
        elif not (
            list(child.children())
            or isinstance(child, FREE_MODULES)
            or any(names & _above(path) for path in paths)
        ):
            told[child] = paths[0]
    return told


def _above(path: str) -> set[str]:
    parts = path.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts))}


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation, and which module of those that are told it belongs to."""

    def __init__(self, paths: dict[nn.Module, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.paths = paths
        self.calls: list[Call] = []
        self.operations: list[Operation] = []
        # Multiply-accumulates of the modules that are running now, the innermost last.
        self._running: list[int] = []

    def enter(self, _module: nn.Module, _inputs: Any, _named: Any) -> None:
        self._running.append(0)

    def leave(self, module: nn.Module, inputs: Any, named: Any, output: Any) -> None:
        written = next(iter(_tensors(output)), None)
        self.calls.append(
            Call(
                self.paths[module],
                module,
                tuple(tuple(item.shape) for item in _tensors((inputs, named))),
                () if written is None else tuple(written.shape),
                self._running.pop(),
            )
        )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        operator = func._overloadpacket  # noqa: SLF001 - what torch's own counter asks
        macs = 0
        if (count := flop_registry.get(operator)) is not None:
            macs = count(*args, **(kwargs or {}), out_val=output) // 2
        if self._running:
            self._running[-1] += macs
        elif not func.is_view:
            written = next(iter(_tensors(output)), None)
            if written is not None:
                name = operator.__name__.strip("_")
                self.operations.append(Operation(name, written.numel(), macs))
        return output


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
