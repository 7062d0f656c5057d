"""Predictor files: safetensors with JSON metadata. Reading one never runs code from it.

A file holds predictors of one or several targets. Its safetensors header carries one text,
`joulemap`: a JSON document (version history beside `VERSION`) whose `sha256` is a digest over the
rest of it and all tensors, so a damaged file is refused and never gives other numbers. Tensors
are float64, named TARGET/ATTRIBUTE; those of predictors that a predictor holds (`part_names`) are
named TARGET/ATTRIBUTE[NUMBER]/..., and their descriptions stand inside its own. What a fit found
that is no number (which terms take part, why a candidate was left out) stands in the `findings` of
the description.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

import joulemap
from joulemap import InputError
from joulemap.regular_files import read_bytes

from ..datasets import NetworkSpec
from ..datasets.metrics import NoiseFloor
from . import registry
from .base.files.findings import Findings
from .base.files.writing import FORMAT, HELD_OUT, READABLE, digest, write
from .base.intervals import FloatArray, HeldOut
from .base.measured_under import DIGEST_LENGTH
from .base.predictor import Predictor

MAX_BYTES = 1 << 30
MAX_METADATA_BYTES = 1 << 26
MAX_DEPTH = 4
# Sums and squares of larger ones leave the numbers; no cost is of that size.
_LARGESTHELD_OUT = 1e100


def save(predictors: Predictor | Sequence[Predictor], path: str | PathLike[str]) -> None:
    """Write fitted predictors, each of another target, to one file.

    The file is complete or not there: it is written beside `path` and then renamed. Equal
    predictors give equal bytes.

    Args:
        predictors: One predictor, or several with different `target_`.
        path: The file; an existing one is replaced.

    Raises:
        InputError: Nothing to save, two predictors of one target, a class that is not in the
            registry, a value that JSON cannot hold, or a path that cannot be written.
        NotFittedError: A predictor is not fitted.
    """
    write([predictors] if isinstance(predictors, Predictor) else list(predictors), path)


def load(path: str | PathLike[str], target: str | None = None) -> Predictor:
    """Return the fitted predictor in a file.

    Args:
        path: A file that `save` wrote.
        target: Which target's predictor; may be left out where the file holds one.

    Raises:
        InputError: No such file, not a predictor file, damaged, written by a newer version, or
            the target is not in it.
    """
    content = _read(Path(path))
    found = ", ".join(content.entries)
    if target is None:
        if len(content.entries) != 1:
            raise InputError(f"{path} holds predictors for {found}; say which as target=...")
        (target,) = content.entries
    if target not in content.entries:
        raise InputError(f"{path} holds no predictor for '{target}', but for {found}")
    prefix = f"{target}/"
    arrays = {
        name.removeprefix(prefix): value
        for name, value in content.tensors.items()
        if name.startswith(prefix)
    }
    try:
        return _restore(target, content.entries[target], arrays, content.version)
    except InputError as error:
        raise InputError(f"{path} cannot be used: {error}") from error
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise InputError(
            f"{path} cannot be used: its metadata do not describe a predictor ({error!r})"
        ) from error


def targets(path: str | PathLike[str]) -> tuple[str, ...]:
    """Return the targets that a file holds predictors for, sorted.

    Raises:
        InputError: As `load`.
    """
    return tuple(_read(Path(path)).entries)


# -- one predictor -------------------------------------------------------------------------------


def _restore(
    target: str,
    entry: Mapping[str, Any],
    arrays: dict[str, FloatArray],
    version: int,
    depth: int = 0,
) -> Predictor:
    cls = registry.class_in_file(entry["model"])
    spec = NetworkSpec.from_json(json.dumps(entry["spec"])) if entry["spec"] is not None else None
    parts = _restore_parts(cls, entry.get("parts", {}), arrays, version, depth)
    given = {name: parts.pop(name) for name in inspect.signature(cls).parameters if name in parts}
    predictor = cls(spec=spec, **entry["hyperparameters"], **given)
    for name, several in parts.items():
        setattr(predictor, name, several)
    predictor.check_parameters()
    names = _texts("width_names", entry["width_names"])
    if spec is not None and names != spec.width_names:
        raise InputError(f"its width names {', '.join(names)} are not those of {spec.name}")
    conditions = entry["conditions"]
    if not isinstance(conditions, dict):
        raise InputError("its conditions are no object")
    predictor.bind(names, unit=_text("unit", entry["unit"]), target=target, conditions=conditions)
    predictor.device_id_ = (
        None if entry["device_id"] is None else _text("device_id", entry["device_id"])
    )
    _restore_origin(predictor, entry)
    if entry["noise_floor"] is not None:
        predictor.noise_floor_ = NoiseFloor.from_dict(entry["noise_floor"])
    predictor.num_samples_ = _count("num_samples", entry["num_samples"])
    _restore_data(predictor, entry, arrays)
    _restore_findings(predictor, entry, arrays, version)
    for name in predictor.state_names:
        if name in arrays or name not in predictor.optional_state_names:
            setattr(predictor, name, _take(arrays, name))
    if arrays:
        raise InputError(f"it has an unknown tensor '{min(arrays)}'")
    predictor.check_state()
    return predictor


def _restore_parts(
    cls: type[Predictor],
    entries: Any,
    arrays: dict[str, FloatArray],
    version: int,
    depth: int,
) -> dict[str, tuple[Predictor, ...]]:
    """Return the predictors that a predictor of that class holds, and take their arrays."""
    if not isinstance(entries, dict) or set(entries) != set(cls.part_names):
        raise InputError(f"it does not hold the predictors that a {cls.__name__} consists of")
    if entries and depth == MAX_DEPTH:
        raise InputError(f"it holds predictors within predictors, more than {MAX_DEPTH} deep")
    found = {}
    for name in cls.part_names:
        several = []
        for number, entry in enumerate(entries[name]):
            prefix = f"{name}[{number}]/"
            inner = [key for key in arrays if key.startswith(prefix)]
            own = {key.removeprefix(prefix): arrays.pop(key) for key in inner}
            inside = _text("target", entry["target"])
            several.append(_restore(inside, entry, own, version, depth + 1))
        found[name] = tuple(several)
    return found


def _restore_origin(predictor: Predictor, entry: Mapping[str, Any]) -> None:
    """Set what says of which device and which rows a predictor is; older files do not record it."""
    former = entry.get("former_ids", [])
    if former:
        predictor.former_ids_ = _texts("former_ids", former)
    rows = entry.get("training_rows")
    if rows is None:
        predictor.training_rows_ = None
        return
    text = _text("training_rows", rows)
    if len(text) % DIGEST_LENGTH:
        raise InputError("its training_rows are no digests")
    predictor.training_rows_ = frozenset(
        text[at : at + DIGEST_LENGTH] for at in range(0, len(text), DIGEST_LENGTH)
    )


def _restore_findings(
    predictor: Predictor, entry: Mapping[str, Any], arrays: dict[str, FloatArray], version: int
) -> None:
    if version > 1:
        values = entry["findings"]
    elif bad := [name for name, value in arrays.items() if not np.all(np.isfinite(value))]:
        raise InputError(f"its tensor '{bad[0]}' contains NaN or infinity")
    else:
        values = predictor.former_findings(arrays)
    found = Findings(values)
    predictor.take_findings(found)
    found.end()


def _restore_data(
    predictor: Predictor, entry: Mapping[str, Any], arrays: dict[str, FloatArray]
) -> None:
    if "width_ranges_" in arrays:
        predictor.width_ranges_ = _take(arrays, "width_ranges_")
        if predictor.width_ranges_.shape != (2, predictor.n_features_in_):
            raise InputError("its width ranges do not fit its widths")
    if entry["num_distinct"] is None:
        return
    # Files before the spread was kept have none.
    names = [*HELD_OUT, *(["spread"] if "held_out_.spread" in arrays else [])]
    values = {name: _take(arrays, f"held_out_.{name}") for name in names}
    if any(np.shape(value) != (predictor.num_samples_,) for value in values.values()):
        raise InputError("its held-out errors do not fit its number of samples")
    if any(np.any(np.abs(value) > _LARGESTHELD_OUT) for value in values.values()):
        raise InputError(f"its held-out errors hold numbers beyond {_LARGESTHELD_OUT:g}")
    held_out = HeldOut(**values, num_distinct=_count("num_distinct", entry["num_distinct"]))
    positive = [held_out.weights] + ([] if held_out.spread is None else [held_out.spread])
    if not 1 <= held_out.num_distinct <= predictor.num_samples_ or np.any(np.stack(positive) <= 0):
        raise InputError(
            "its held-out errors have weights, spreads or counts that are not positive"
        )
    predictor.held_out_ = held_out


def _take(arrays: dict[str, FloatArray], name: str) -> Any:
    if name not in arrays:
        raise InputError(f"it has no tensor '{name}'")
    value = arrays.pop(name)
    if not np.all(np.isfinite(value)):
        raise InputError(f"its tensor '{name}' contains NaN or infinity")
    return float(value) if value.ndim == 0 else value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"its {name} is {value!r}, not a text")
    return value


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise InputError(f"its {name} is {value!r}, not a list of texts")
    return tuple(_text(name, item) for item in value)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"its {name} is {value!r}, not a count")
    return value


# -- the file ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Content:
    version: int
    entries: dict[str, Any]
    tensors: dict[str, FloatArray]


def _read(path: Path) -> _Content:
    data = _read_bytes(path)
    foreign = InputError(
        f"{path} is not a predictor file of joulemap, or it is damaged; write one with "
        "predictor.save(path)"
    )
    try:
        stored: Any = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (safetensors.SafetensorError, ValueError, RecursionError, OverflowError) as error:
        raise foreign from error
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or "joulemap" not in metadata:
        raise foreign
    document = _document(path, metadata["joulemap"])
    tensors = {}
    for name, tensor in stored:
        if tensor["dtype"] != "F64":
            raise InputError(f"{path} holds {tensor['dtype']} numbers; a predictor file has F64")
        tensors[name] = np.frombuffer(tensor["data"], dtype="<f8").reshape(tensor["shape"]).copy()
    expected = document.pop("sha256", None)
    try:
        found = digest(document, tensors)
    except (ValueError, RecursionError) as error:
        raise foreign from error
    if found != expected:
        raise InputError(f"{path} is damaged: its checksum does not match its content")
    return _Content(document["version"], _entries(path, document), tensors)


def _document(path: Path, text: str) -> dict[str, Any]:
    if len(text) > MAX_METADATA_BYTES:
        raise InputError(f"{path} has {len(text)} characters of metadata; it is damaged")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} has metadata that cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError(f"{path} has metadata of another format than {FORMAT}")
    # Before the checksum: another version may compute it otherwise.
    if document.get("version") not in READABLE:
        raise InputError(
            f"{path} has version {document.get('version')!r} of the format; joulemap "
            f"{joulemap.__version__} reads versions {' and '.join(map(str, READABLE))}. Install a newer joulemap"
        )
    return document


def _entries(path: Path, document: dict[str, Any]) -> dict[str, Any]:
    entries = document.get("predictors")
    if not isinstance(entries, dict) or not entries:
        raise InputError(f"{path} holds no predictors")
    return dict(sorted(entries.items()))


def _read_bytes(path: Path) -> bytes:
    try:
        return read_bytes(path, MAX_BYTES)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
