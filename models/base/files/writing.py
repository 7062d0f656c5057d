"""Writing predictor files; `joulemap.models.serialization` says what they hold and reads them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

import joulemap
from joulemap import InputError
from joulemap.regular_files import write_whole

from ....datasets.metrics import NoiseFloor
from ..intervals import FloatArray, HeldOut
from ..names import name_of

FORMAT = "joulemap-predictor"
VERSION = 2
# 1: first version.
# 2: `findings` hold choices, flags and texts, which the arrays held as numbers before.
READABLE = (1, VERSION)

HELD_OUT = ("measured", "predicted", "weights")


class Writable(Protocol):
    """What a file holds: a fitted `Predictor`, see there."""

    state_names: ClassVar[tuple[str, ...]]
    part_names: ClassVar[tuple[str, ...]]

    unit_: str
    target_: str
    noise_floor_: NoiseFloor | None
    conditions_: dict[str, Any]
    width_names_: tuple[str, ...]
    width_ranges_: FloatArray | None
    num_samples_: int
    held_out_: HeldOut | None
    device_id_: str | None
    former_ids_: tuple[str, ...]
    training_rows_: frozenset[str] | None

    def ready(self) -> None:
        """Check that it is fitted."""

    def findings(self) -> dict[str, Any]:
        """Return what the fit found that is no array, as JSON values."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's arguments."""


def write(several: Sequence[Writable], path: str | PathLike[str]) -> None:
    """Write fitted predictors to one file; see `joulemap.models.serialization.save`."""
    if not several:
        raise InputError("there is no predictor to save")
    tensors: dict[str, NDArray[np.float64]] = {}
    entries = {}
    for predictor in several:
        predictor.ready()
        target = predictor.target_
        if target in entries:
            raise InputError(f"two predictors for '{target}'; a file holds one for each target")
        if not target or "/" in target:
            raise InputError(f"a target is a name without '/', not {target!r}")
        entries[target] = _describe(predictor)
        for name, value in _arrays(predictor).items():
            tensors[f"{target}/{name}"] = np.array(value, dtype=np.float64, order="C")
    document = {
        "format": FORMAT,
        "version": VERSION,
        "joulemap_version": joulemap.__version__,
        "predictors": entries,
    }
    try:
        document["sha256"] = digest(document, tensors)
    except (TypeError, ValueError) as error:
        raise InputError(f"the predictor holds a value that JSON cannot hold: {error}") from error
    metadata = {"joulemap": canonical(document)}
    _write_whole(Path(path), safetensors.numpy.save(tensors, metadata=metadata))


def _describe(predictor: Writable) -> dict[str, Any]:
    """Return what a file says of a predictor beside its arrays."""
    parameters = predictor.get_params(deep=False)
    spec = parameters.pop("spec")
    floor, held_out = predictor.noise_floor_, predictor.held_out_
    parts = {}
    for name, several in _parts(predictor).items():
        parameters.pop(name, None)
        parts[name] = [{"target": part.target_, **_describe(part)} for part in several]
    return ({"parts": parts} if parts else {}) | {
        "model": name_of(predictor),
        "hyperparameters": {name: _plain(value) for name, value in parameters.items()},
        "spec": json.loads(spec.to_json()) if spec is not None else None,
        "width_names": list(predictor.width_names_),
        "unit": predictor.unit_,
        "noise_floor": floor.to_dict() if floor is not None else None,
        "conditions": {name: _plain(value) for name, value in predictor.conditions_.items()},
        "device_id": predictor.device_id_,
        "former_ids": list(predictor.former_ids_),
        "training_rows": None
        if predictor.training_rows_ is None
        else "".join(sorted(predictor.training_rows_)),
        "num_samples": predictor.num_samples_,
        "findings": predictor.findings(),
        "num_distinct": held_out.num_distinct if held_out is not None else None,
    }


def _arrays(predictor: Writable) -> dict[str, Any]:
    arrays = {name: getattr(predictor, name) for name in predictor.state_names}
    if predictor.width_ranges_ is not None:
        arrays["width_ranges_"] = predictor.width_ranges_
    if predictor.held_out_ is not None:
        for name in HELD_OUT:
            arrays[f"held_out_.{name}"] = getattr(predictor.held_out_, name)
        if predictor.held_out_.spread is not None:
            arrays["held_out_.spread"] = predictor.held_out_.spread
    for name, several in _parts(predictor).items():
        for number, part in enumerate(several):
            for inner, value in _arrays(part).items():
                arrays[f"{name}[{number}]/{inner}"] = value
    return arrays


def _parts(predictor: Writable) -> dict[str, tuple[Writable, ...]]:
    """Return the fitted predictors that a predictor holds, by attribute."""
    found = {name: tuple(getattr(predictor, name)) for name in predictor.part_names}
    for several in found.values():
        for part in several:
            part.ready()
    return found


def _write_whole(path: Path, data: bytes) -> None:
    try:
        write_whole(path, lambda file: file.write(data))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def canonical(document: Mapping[str, Any]) -> str:
    """Return the one text that JSON of equal content has."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(document: Mapping[str, Any], tensors: Mapping[str, FloatArray]) -> str:
    """Return the SHA-256 over a file's document and tensors, in hexadecimal digits."""
    found = hashlib.sha256(canonical(document).encode())
    for name, value in sorted(tensors.items()):
        found.update(json.dumps([name, list(value.shape)]).encode())
        found.update(np.ascontiguousarray(value, dtype="<f8").tobytes())
    return found.hexdigest()
