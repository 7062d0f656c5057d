"""Datasets on disk: Parquet for exchange, with spec, device and protocol inside and beside it.

A campaign's folder::

    journal.jsonl          what was measured, visit by visit: the source of everything else
    measurements.parquet   one row per variant: widths, conditions, costs, uncertainty
    visits.parquet         one row per visit, with its raw latencies
    layers.parquet         what each layer of some variants took, where that was asked for
    spec.json              the network; device.json, protocol.json: where and how
    README.md              the dataset card
    device-token           under which a remote device keeps the campaign's work
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from joulemap import InputError, __version__, interruption
from joulemap.showable_text import showable

from .cost_dataset import CostDataset, DroppedRowsWarning
from .dataset_card import dataset_card
from .journal import FILE_NAME as JOURNAL
from .journal import CampaignRecord, JournalContent, read_journal, take_lock
from .layer_profiles import FILE_NAME as LAYERS
from .measurement import Measurement, measurements_of
from .network_spec import NetworkSpec
from .records import Visit

MEASUREMENTS = "measurements.parquet"
VISITS = "visits.parquet"
DEVICE_LINK = "device-token"
FORMAT_VERSION = 1
# 1: first version (2026-11).
_KEY = b"joulemap"
_FILES = (
    JOURNAL,
    MEASUREMENTS,
    VISITS,
    LAYERS,
    "spec.json",
    "device.json",
    "protocol.json",
    "README.md",
    DEVICE_LINK,
)


def load_dataset(path: str | Path) -> CostDataset:
    """Return the dataset in a folder or a Parquet file.

    In a campaign's folder the journal counts, so a campaign that still runs or was interrupted can
    be read too.

    Raises:
        InputError: There is none, or it is damaged.
    """
    path = Path(path)
    if path.is_dir():
        if (path / JOURNAL).exists():
            return dataset_of(read_journal(path / JOURNAL))
        path = path / MEASUREMENTS
    if not path.exists():
        raise InputError(
            f"no dataset at {path}: expected a folder made by `joulemap profile` or "
            "`joulemap import`, or a Parquet file of one"
        )
    try:
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {})[_KEY])
        if about["format_version"] != FORMAT_VERSION:
            raise InputError(
                f"{path} has format version {about['format_version']}; this joulemap reads version "
                f"{FORMAT_VERSION}"
            )
        specs = [NetworkSpec.from_json(json.dumps(spec)) for spec in about["specs"]]
        frame = table.to_pandas(ignore_metadata=True)
        return CostDataset(
            frame,
            {spec.fingerprint: spec for spec in specs},
            device=about["device"],
            protocol=about["protocol"],
            source=about["source"],
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except KeyError as error:
        raise InputError(
            f"{path} is a Parquet file, but not one of joulemap's ({error})"
        ) from error
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged or no Parquet file: {str(error)[:300]}") from error


def dataset_of(journal: JournalContent) -> CostDataset:
    """Return the dataset of what a journal holds so far; what of it cannot be used is said."""
    _warn_of(journal)
    return _dataset(journal, measurements_of(journal.visits, journal.rejections))


def _dataset(journal: JournalContent, measurements: Sequence[Measurement]) -> CostDataset:
    campaign = journal.campaign
    return CostDataset.from_measurements(
        measurements,
        campaign.spec,
        device={**campaign.device, **_meters(campaign)},
        protocol=campaign.protocol,
        source=f"measured by joulemap {campaign.joulemap_version}",
    )


def _warn_of(journal: JournalContent) -> None:
    """Say what in a journal cannot be used."""
    if journal.unusable:
        more = f", and {len(journal.unusable) - 1} more" if len(journal.unusable) > 1 else ""
        warnings.warn(
            f"the journal holds what no device can truthfully say, which was left out: "
            f"{showable(journal.unusable[0], 300)}{more}",
            DroppedRowsWarning,
            stacklevel=3,
        )


def _meters(campaign: CampaignRecord) -> dict[str, Any]:
    """Return what energy was read from, in words, as part of the device's description."""
    texts = []
    for meter in campaign.meters:
        text = f"{meter.get('name')}:{meter.get('channel')} ({meter.get('kind')} of {meter.get('domain')}"
        # What computes joules has none.
        period_s = meter.get("observed_update_period_s")
        texts.append(f"{text})" if period_s is None else f"{text}, updated every {period_s} s)")
    if texts:
        return {"meters": texts}
    return {"meters": f"none: {campaign.meter_note}"} if campaign.meter_note else {}


def export_campaign(folder: str | Path) -> CostDataset:
    """Write the Parquet files and the card of a campaign from its journal and return the dataset.

    Raises:
        InputError: The journal is damaged or the folder cannot be written.
    """
    folder = Path(folder)
    journal = read_journal(folder / JOURNAL)
    _warn_of(journal)
    measurements = measurements_of(journal.visits, journal.rejections)
    dataset = _dataset(journal, measurements)
    campaign = measurements[0].campaign
    rows = []
    for visit in journal.visits:
        timing = visit.timing
        rows.append(
            {
                "variant_id": visit.variant_id,
                "visit_index": visit.visit_index,
                "attempt": visit.attempt,
                "sequence": visit.sequence,
                "started_at": visit.started_at,
                "is_revisit": visit.is_revisit,
                "error": visit.error,
                "rejected": campaign.rejections.get(visit.key),
                "corrected_latency_s": campaign.corrected_visit_s(visit),
                "latency_s": timing.latency_s if timing else None,
                "latencies_s": [list(b.latencies_s) for b in timing.blocks] if timing else None,
                "warm_up_s": list(timing.warm_up_s) if timing else None,
                "is_settled": timing.is_settled if timing else None,
                "reference_before_s": timing.reference_before.median_s if timing else None,
                "reference_after_s": timing.reference_after.median_s if timing else None,
                "measuring_s": timing.measuring_s if timing else None,
                "load_s": timing.load_s if timing else None,
                **_energy_columns(visit),
            }
        )
    _write_parquet(folder / VISITS, pd.DataFrame(rows), {"format_version": FORMAT_VERSION})
    _write_dataset(dataset, folder)
    return dataset


def _energy_columns(visit: Visit) -> dict[str, Any]:
    energy, trace = visit.energy, visit.power_trace
    return {
        "energy_j": energy.energy_j if energy else None,
        "energy_standard_error_j": energy.standard_error_j if energy else None,
        "energy_gross_j": energy.gross_j if energy else None,
        "energy_idle_w": energy.idle_w if energy else None,
        "energy_source": energy.source if energy else None,
        "energy_window_s": energy.window_s if energy else None,
        "energy_flags": list(energy.flags) if energy else None,
        "energy_check_j": energy.check.net_j if energy and energy.check else None,
        "energy_refused": visit.energy_refused,
        "power_times_s": list(trace.times_s) if trace else None,
        "power_values": list(trace.values) if trace else None,
    }


def save_dataset(dataset: CostDataset, folder: str | Path) -> None:
    """Write a dataset without a journal (an imported table) into a new folder.

    Raises:
        InputError: The folder holds something already or cannot be written.
    """
    folder = make_folder(folder)
    if (folder / JOURNAL).exists() or (folder / MEASUREMENTS).exists():
        raise InputError(f"{folder} holds a dataset already; choose another folder")
    _write_dataset(dataset, folder)


def make_folder(folder: str | Path) -> Path:
    """Return the folder, made if needed.

    Raises:
        InputError: It is a file, cannot be written, or holds files that are not a dataset's.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = sorted(
            item.name
            for item in folder.iterdir()
            if item.name not in _FILES and not item.name.startswith(".")
        )
        # Asking the system about permissions is not enough: read-only mounts, quotas.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".write-test-"):
            pass
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from error
    if foreign and not (folder / JOURNAL).exists() and not (folder / MEASUREMENTS).exists():
        raise InputError(
            f"{folder} is not empty and holds no joulemap dataset (it has {foreign[0]}); choose a "
            "new folder"
        )
    return folder


@contextlib.contextmanager
def held_folder(folder: str | Path) -> Iterator[Path]:
    """Yield the folder, made if needed, and keep other campaigns off it while the block runs.

    Raises:
        InputError: As `make_folder`, or another campaign holds it.
    """
    folder = make_folder(folder)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        take_lock(fd)
    except BlockingIOError as error:
        os.close(fd)
        raise InputError(
            f"another joulemap campaign is writing to {folder}; wait for it, or choose another folder"
        ) from error
    except OSError:
        # Some network file systems lock files only: the journal's own lock remains.
        pass
    try:
        yield folder
    finally:
        os.close(fd)


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file beside its final place and move it there when it is complete and on disk.

    Args:
        path: The final place.
        write: Writes the content to the path that it is given.

    Raises:
        InputError: The disk is full or the folder cannot be written; the old file is untouched.
    """
    try:
        with interruption.finishing():
            fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
            os.close(fd)
            temporary = Path(name)
            try:
                write(temporary)
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
                temporary.chmod(0o644)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        # Arrow wraps the system's words in its own.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"cannot write {path}: {reason}") from error


def _write_dataset(dataset: CostDataset, folder: Path) -> None:
    about = {
        "format_version": FORMAT_VERSION,
        "joulemap_version": __version__,
        "specs": [json.loads(spec.to_json()) for spec in dataset.specs.values()],
        "units": {name: dataset.unit(name) for name in dataset.cost_names},
        "device": dataset.device,
        "protocol": dataset.protocol,
        "source": dataset.source,
    }
    frame = dataset.to_pandas()
    sparsity = [name for name in frame.columns if str(name).startswith("sparsity_")]
    _write_parquet(folder / MEASUREMENTS, frame.drop(columns=sparsity), about)
    texts = {
        "device.json": json.dumps(dataset.device, indent=1, sort_keys=True),
        "protocol.json": json.dumps(dataset.protocol, indent=1, sort_keys=True),
        "README.md": dataset_card(dataset),
    }
    if len(dataset.specs) == 1:
        texts["spec.json"] = dataset.spec.to_json()
    for name, text in texts.items():
        write_atomically(folder / name, lambda path, text=text: _write_text(path, text))  # type: ignore[misc]


def _write_text(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")


def _write_parquet(path: Path, frame: pd.DataFrame, about: Mapping[str, Any]) -> None:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({_KEY: json.dumps(about).encode()})
    write_atomically(path, lambda temporary: pq.write_table(table, temporary))
