"""A network as data: width variables, layers, input shape. It describes cost, it does not run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from joulemap import InputError

from .field_checks import name_of
from .layer_spec import LayerSpec, ResolvedLayer
from .size import Size

SCHEMA_VERSION = 1
# 1: first version (2026-11).

# What a spec's source begins with: where the network comes from.
SOURCES = ("zoo:", "factory:", "file:", "timm:", "torchvision:", "hf:", "onnx:")

WidthVector: TypeAlias = "Sequence[int] | Mapping[str, int] | np.ndarray[Any, Any]"


@dataclass(frozen=True)
class Width:
    """One integer variable of a network: the output channels of a prunable layer group.

    Args:
        name: An identifier; layers refer to the width by it.
        max: The largest value in channels, that of the unpruned network.
        min: The smallest value in channels.
        multiple: Values are multiples of this.

    Raises:
        InputError: The bounds are not positive integers in order, or not multiples of `multiple`.
    """

    name: str
    max: int
    min: int = 1
    multiple: int = 1

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name.isidentifier() and self.name.isascii()):
            raise InputError(f"a width's name is an identifier, not {self.name!r}")
        for bound in ("max", "min", "multiple"):
            value = getattr(self, bound)
            if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
                raise InputError(f"{bound} of width '{self.name}' is {value!r}, not an int >= 1")
            object.__setattr__(self, bound, value.__index__())
        if self.min > self.max or self.min % self.multiple or self.max % self.multiple:
            raise InputError(
                f"width '{self.name}' has min {self.min}, max {self.max} and multiple "
                f"{self.multiple}; need min <= max, both multiples of {self.multiple}"
            )


@dataclass(frozen=True)
class ResolvedNetwork:
    """A network at one width vector: every layer with plain integers, and the totals."""

    layers: tuple[ResolvedLayer, ...]
    batch: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one call of the batch."""
        return sum(layer.macs for layer in self.layers)

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return sum(layer.params for layer in self.layers)

    @property
    def bytes(self) -> int:
        """Bytes of weights, layer inputs and layer outputs in fp32, each counted once per layer."""
        return sum(layer.bytes for layer in self.layers)

    def __getitem__(self, name: str) -> ResolvedLayer:
        """Return the layer of that name."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)


@dataclass(frozen=True)
class NetworkSpec:
    """A network as data: width variables, layers, input shape.

    Loading one never imports or runs anything; `joulemap.profiler.networks.build` resolves
    `source` into a torch module.

    Args:
        name: What users call it.
        source: `zoo:NAME`, `factory:module:fn`, `file:NAME.py:fn@SHA256`, `timm:NAME`,
            `torchvision:NAME`, `hf:CLASS` or `onnx:SHA256`.
        input_shape: One sample without the batch, such as (3, 224, 224).
        widths: The width variables; their order is the column order of every dataset.
        layers: The layers. `inputs=()` means the layer before it, the network's input for the
            first.

    Raises:
        InputError: A layer uses an unknown width or producer, the layers form a cycle, the inputs
            of an `add` have unequal sizes, or channels do not fit their producers.
    """

    name: str
    source: str
    input_shape: tuple[int, ...]
    widths: tuple[Width, ...]
    layers: tuple[LayerSpec, ...]
    schema_version: int = field(default=SCHEMA_VERSION, kw_only=True)

    def __repr__(self) -> str:
        # Short: a predictor's parameters, and thus its text, hold the spec.
        return (
            f"NetworkSpec({self.name!r}, {self.source!r}, {len(self.widths)} widths, "
            f"{len(self.layers)} layers)"
        )

    def __post_init__(self) -> None:
        for name in ("input_shape", "widths", "layers"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check()

    # -- the width vector ------------------------------------------------------------------------

    @cached_property
    def width_names(self) -> tuple[str, ...]:
        """Names of the width variables, in order."""
        return tuple(width.name for width in self.widths)

    @cached_property
    def max_widths(self) -> tuple[int, ...]:
        """The unpruned network's width vector, in channels."""
        return tuple(width.max for width in self.widths)

    @cached_property
    def min_widths(self) -> tuple[int, ...]:
        """The smallest width vector, in channels."""
        return tuple(width.min for width in self.widths)

    def check_widths(self, widths: WidthVector) -> tuple[int, ...]:
        """Return the width vector as ints in order, checked against the bounds.

        Args:
            widths: k ints in order, or a mapping by width name.

        Raises:
            InputError: Wrong count, unknown or missing name, a value that is not an integer,
                out of bounds, or no multiple of the width's `multiple`.
        """
        if isinstance(widths, Mapping):
            unknown = sorted(set(widths) - set(self.width_names))
            missing = [name for name in self.width_names if name not in widths]
            if unknown or missing:
                problem = f"unknown: {', '.join(unknown)}" if unknown else f"missing: {missing}"
                raise InputError(
                    f"widths of {self.name} are {', '.join(self.width_names)}; {problem}"
                )
            values: list[Any] = [widths[name] for name in self.width_names]
        else:
            values = list(widths)
        if len(values) != len(self.widths):
            raise InputError(
                f"{self.name} has {len(self.widths)} widths ({', '.join(self.width_names)}), "
                f"but {len(values)} were given"
            )
        checked = []
        for width, value in zip(self.widths, values, strict=True):
            integer = _as_int(value)
            if integer is None:
                raise InputError(f"width '{width.name}' of {self.name} is {value!r}, not an int")
            if not width.min <= integer <= width.max or integer % width.multiple:
                multiple = f" in multiples of {width.multiple}" if width.multiple > 1 else ""
                raise InputError(
                    f"width '{width.name}' of {self.name} is {integer}, outside "
                    f"{width.min}..{width.max}{multiple}"
                )
            checked.append(integer)
        return tuple(checked)

    def at(self, widths: WidthVector, batch: int = 1) -> ResolvedNetwork:
        """Return the network's layers with integer sizes at one width vector.

        Args:
            widths: k ints in order, or a mapping by width name, in channels.
            batch: Samples per call.

        Raises:
            InputError: The widths do not fit the spec.
        """
        values = dict(zip(self.width_names, self.check_widths(widths), strict=True))
        return ResolvedNetwork(
            tuple(layer.at(values, batch=batch) for layer in self.layers), batch=batch
        )

    # -- graph -----------------------------------------------------------------------------------

    @cached_property
    def producers(self) -> Mapping[str, tuple[str, ...]]:
        """Layer name to the names of the layers it reads; the network's input is ''."""
        before = ""
        found = {}
        for layer in self.layers:
            found[layer.name] = layer.inputs or (before,)
            before = layer.name
        return found

    def _check(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise InputError(
                f"network spec '{self.name}' has schema version {self.schema_version}; this "
                f"joulemap reads version {SCHEMA_VERSION}"
            )
        name_of("a network's name", self.name)
        name_of(f"the source of '{self.name}'", self.source, 4096)
        for layer in self.layers:
            name_of(f"the name of a layer of {self.name}", layer.name, 1000)
        if not self.source.startswith(SOURCES):
            raise InputError(
                f"source of '{self.name}' is '{self.source}'; write zoo:NAME, factory:module:fn, "
                "file:NAME.py:fn@SHA256, timm:NAME, torchvision:NAME, hf:CLASS or onnx:SHA256"
            )
        if not self.input_shape or any(_as_int(n) is None or n < 1 for n in self.input_shape):
            raise InputError(f"input_shape of '{self.name}' is {self.input_shape}, not ints >= 1")
        if not self.layers:
            raise InputError(f"network spec '{self.name}' has no layers")
        _refuse_duplicates(self.name, "width", self.width_names)
        _refuse_duplicates(self.name, "layer", [layer.name for layer in self.layers])
        known = set(self.width_names)
        for layer in self.layers:
            for size in (layer.in_channels, layer.out_channels, layer.groups):
                if unknown := sorted(size.names - known):
                    raise InputError(
                        f"layer '{layer.name}' of {self.name} uses the width '{unknown[0]}', which "
                        f"is not among {', '.join(self.width_names)}"
                    )
        by_name = {layer.name: layer for layer in self.layers}
        for layer in self.layers:
            for producer in layer.inputs:
                if producer and producer not in by_name:
                    raise InputError(
                        f"layer '{layer.name}' of {self.name} reads '{producer}', which is no layer"
                    )
        self._refuse_cycles()
        for layer in self.layers:
            layer.check_inputs([by_name[name] for name in layer.inputs if name])
        for bounds in (self.min_widths, self.max_widths):
            self.at(bounds)

    def _refuse_cycles(self) -> None:
        done: set[str] = {""}
        waiting = dict(self.producers)
        while waiting:
            ready = [name for name, inputs in waiting.items() if done.issuperset(inputs)]
            if not ready:
                raise InputError(
                    f"the layers {', '.join(sorted(waiting))} of {self.name} form a cycle"
                )
            done.update(ready)
            for name in ready:
                del waiting[name]

    # -- JSON ------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """Return the spec as canonical JSON: sorted keys, no spaces."""
        content = {
            "schema_version": self.schema_version,
            "name": self.name,
            "source": self.source,
            "input_shape": list(self.input_shape),
            "widths": [
                {f.name: getattr(width, f.name) for f in fields(width)} for width in self.widths
            ],
            "layers": [layer.to_dict() for layer in self.layers],
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> NetworkSpec:
        """Return the spec that `to_json` wrote, validated.

        Raises:
            InputError: Not JSON, unknown or missing keys, another schema version, or an invalid
                network.
        """
        try:
            content = json.loads(text)
            unknown = set(content) - {f.name for f in fields(cls)}
            if unknown:
                raise InputError(f"a network spec has no field '{min(unknown)}'")
            return cls(
                name=str(content["name"]),
                source=str(content["source"]),
                input_shape=tuple(content["input_shape"]),
                widths=tuple(Width(**width) for width in content["widths"]),
                layers=tuple(LayerSpec.from_dict(layer) for layer in content["layers"]),
                schema_version=content["schema_version"],
            )
        except InputError:
            raise
        except KeyError as error:
            raise InputError(f"the network spec has no field {error}") from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"the network spec cannot be read: {error}") from error

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of the canonical JSON: the spec's identity in every record."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def _as_int(value: Any) -> int | None:
    if isinstance(value, bool | np.bool_):
        return None
    if hasattr(value, "__index__"):
        return int(value.__index__())
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return int(value)
    return None


def _refuse_duplicates(network: str, what: str, names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{network} has two {what}s named '{name}'")
        seen.add(name)


__all__ = ["SCHEMA_VERSION", "NetworkSpec", "ResolvedNetwork", "Size", "Width", "WidthVector"]
