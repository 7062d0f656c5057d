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
import stat
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from joulemap import InputError, __version__
from joulemap.regular_files import write_whole
from joulemap.showable_text import showable

from .dataset_card import Describable, dataset_card
from .dataset_parts import DatasetParts, DroppedRowsWarning, parts_of
from .field_checks import name_of
from .journal import FILE_NAME as JOURNAL
from .journal import CampaignRecord, JournalContent, read_journal, take_lock
from .judgement_settings import JudgementSettings
from .layer_profiles import FILE_NAME as LAYERS
from .measurement import Measurement, measurements_of
from .network_spec import NetworkSpec
from .parquet_file import (
    ParquetContent,
    read_parquet,
    write_parquet,
)
from .records import Visit
from .verification import NO_CHAIN, NO_DIGEST, UnverifiedWarning, Verification

MEASUREMENTS = "measurements.parquet"
VISITS = "visits.parquet"
DEVICE_LINK = "device-token"
READ_VERSIONS = (1, 2)
# 1: first version (2026-11).
# 2: a digest of the content, which is checked when it is read, and how many lines the journal had
# (2026-11).
_KEY = "joulemap"
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


@dataclass(frozen=True)
class CampaignTables:
    """What is exported of a campaign.

    Attributes:
        parts: What its dataset is made of.
        visits: One row per visit.
        counted: How many lines the journal has, and the checksum of the last one.
    """

    parts: DatasetParts
    visits: pd.DataFrame
    counted: Mapping[str, Any]


def read_parts(path: Path, *, allow_damaged: bool = False) -> DatasetParts:
    """Return what the dataset in a folder or a Parquet file is made of.

    In a campaign's folder the journal counts, so a campaign that still runs or was interrupted can
    be read too.

    Args:
        path: A folder, or a Parquet file of one.
        allow_damaged: Whether to read what can be read of a damaged one: a Parquet file whose digest
            does not match, the lines of a journal before the first one that cannot be used. It is
            marked as not verified, and a warning says so.

    Raises:
        InputError: There is none, or it is damaged.
    """
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            if os.path.lexists(path / JOURNAL):
                return parts_of_journal(read_campaign(path, allow_damaged=allow_damaged))
            path = path / MEASUREMENTS
        found = read_parquet(path, _KEY, READ_VERSIONS, allow_damaged=allow_damaged)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"no dataset at {path}: expected a folder made by `joulemap profile` or "
            "`joulemap import`, or a Parquet file of one"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    with naming(path):
        return _parts_in(found, path)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the Parquet file in the errors of a block that makes a dataset of what it holds."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except KeyError as error:
        raise InputError(
            f"{path} is a Parquet file, but not one of joulemap's ({error})"
        ) from error
    except (pa.ArrowException, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged or no dataset of joulemap's: {str(error)[:200]}"
        ) from error


def _parts_in(found: ParquetContent, path: Path) -> DatasetParts:
    """Return what the dataset that a Parquet file holds is made of.

    Raises:
        InputError: Its values are none of a dataset.
        KeyError: The document about it lacks something.
    """
    about = found.about
    for field in found.table.schema:
        if pa.types.is_nested(field.type):
            raise InputError(
                f"the column '{field.name}' holds values of the type {str(field.type)[:60]}; a "
                "dataset's columns hold numbers and texts"
            )
    notes = tuple(str(note) for note in about.get("notes", ()))
    if not found.has_digest:
        verification = Verification(
            is_verified=False, notes=(f"Nothing vouches for it: {NO_DIGEST}.",)
        )
    elif not found.is_verified:
        notes = ("Its digest does not match its content.", *notes)
        verification = Verification(is_verified=False, notes=notes)
        warnings.warn(f"the dataset is damaged: {notes[0]}", UnverifiedWarning, stacklevel=4)
    else:
        verification = Verification(about.get("is_verified") is not False, notes)
    specs = [NetworkSpec.from_json(json.dumps(spec)) for spec in about["specs"]]
    judgement = about.get("judgement")
    if not isinstance(about["source"], str):
        raise InputError("its source is no text")
    return DatasetParts(
        frame=found.table.to_pandas(ignore_metadata=True),
        specs={spec.fingerprint: spec for spec in specs},
        device=about["device"],
        protocol=about["protocol"],
        judgement=None if judgement is None else JudgementSettings.from_dict(judgement),
        source=about["source"],
        verification=verification,
        parquet_file=path,
    )


def read_campaign(folder: Path, *, allow_damaged: bool = False) -> JournalContent:
    """Return what the journal in a campaign's folder holds.

    Args:
        folder: The campaign's folder.
        allow_damaged: Whether to take what can be used of a damaged journal.

    Raises:
        InputError: There is none, it is damaged, or it lacks lines at its end that were there when
            the dataset beside it was written.
    """
    journal = read_journal(folder / JOURNAL, allow_damaged=allow_damaged)
    if (lost := lost_lines(folder, journal)) and not allow_damaged:
        raise InputError(
            f"{lost}. The same `joulemap profile` command measures what is missing again; "
            f"{folder / MEASUREMENTS} alone, given instead of the folder, still holds every row (in "
            "Python, allow_damaged=True takes the journal as it is)"
        )
    return journal


def lost_lines(folder: Path, journal: JournalContent) -> str | None:
    """Return what the dataset in a campaign's folder says of lines that its journal lost, or None.

    The dataset holds how many lines the journal had when it was written, and the checksum of the
    last one. Nothing is said where there is no dataset, an older one, or one that is damaged.

    Args:
        folder: The campaign's folder.
        journal: What the journal in it holds.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            counted = read_parquet(folder / MEASUREMENTS, _KEY, READ_VERSIONS).about["journal"]
        lines, checksum = int(counted["lines"]), int(counted["crc32"])
    except (OSError, InputError, KeyError, TypeError, ValueError):
        return None
    there = len(journal.checksums)
    if there < lines:
        return (
            f"the journal {folder / JOURNAL} lost lines at its end: it has {there}, and had {lines} "
            f"when {MEASUREMENTS} was written"
        )
    if lines < 1 or (journal.is_chained and journal.checksums[lines - 1] != checksum):
        return f"{folder / MEASUREMENTS} was written from another journal than {JOURNAL} beside it"
    return None


def _verification_of(journal: JournalContent) -> Verification:
    """Return what is known of a journal; a damaged one gives a warning besides."""
    notes = []
    if journal.damage is not None:
        notes.append(f"Only what stands before the damage was read: {journal.damage}.")
        warnings.warn(notes[-1], UnverifiedWarning, stacklevel=4)
    elif not journal.is_chained:
        notes.append(f"Nothing vouches for it: {NO_CHAIN}.")
    if journal.torn_bytes:
        notes.append(
            f"The journal ends in a torn line of {journal.torn_bytes} bytes, which was left out: what "
            "wrote it was killed. The same `joulemap profile` command goes on from there."
        )
    return Verification(journal.is_verified, tuple(notes))


def parts_of_journal(journal: JournalContent) -> DatasetParts:
    """Return what the dataset of a journal is made of; what of it cannot be used is said."""
    _warn_of(journal)
    return _parts(journal, _measurements(journal))


def _measurements(journal: JournalContent) -> list[Measurement]:
    """Return what a journal's visits say, judged as its campaign was."""
    return measurements_of(journal.visits, journal.rejections, journal.campaign.judgement)


def _parts(journal: JournalContent, measurements: Sequence[Measurement]) -> DatasetParts:
    campaign = journal.campaign
    return parts_of(
        measurements,
        campaign.spec,
        device={**campaign.device, **_meters(campaign)},
        protocol=campaign.protocol,
        judgement=campaign.judgement,
        source=f"measured by joulemap {campaign.joulemap_version}",
        verification=_verification_of(journal),
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


def campaign_tables(folder: Path) -> CampaignTables:
    """Return what is exported of a campaign: what its dataset is made of, and its visits.

    Raises:
        InputError: The journal is damaged.
    """
    journal = read_journal(folder / JOURNAL)
    _warn_of(journal)
    measurements = _measurements(journal)
    parts = _parts(journal, measurements)
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
    return CampaignTables(
        parts, pd.DataFrame(rows), {"lines": len(journal.checksums), "crc32": journal.checksums[-1]}
    )


def write_campaign(dataset: Describable, tables: CampaignTables, folder: Path) -> None:
    """Write the Parquet files and the card of a campaign.

    Args:
        dataset: The dataset of the tables' parts.
        tables: What to write.
        folder: The campaign's.

    Raises:
        InputError: The folder cannot be written.
    """
    _write_frame(folder / VISITS, tables.visits, {"format_version": READ_VERSIONS[-1]})
    _write_dataset(dataset, folder, {"journal": dict(tables.counted)})


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


def save_dataset(dataset: Describable, folder: str | Path) -> None:
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
    # What is no UTF-8 is the file system's matter.
    name_of("the folder", os.fsencode(folder).decode(errors="replace"), 4096)
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


def write_atomically(path: Path, text: str) -> None:
    """Write a text beside its final place and move it there when it is complete and on disk.

    Args:
        path: The final place.
        text: The whole content.

    Raises:
        InputError: The disk is full, the folder cannot be written, or no regular file is there; the
            old file is untouched.
    """
    content = text.encode("utf-8", "backslashreplace")
    try:
        write_whole(path, lambda file: file.write(content))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def _write_dataset(
    dataset: Describable, folder: Path, campaign: Mapping[str, Any] | None = None
) -> None:
    about = {
        **(campaign or {}),
        "format_version": READ_VERSIONS[-1],
        "is_verified": dataset.is_verified is not False,
        "notes": list(dataset.verification.notes) if dataset.is_verified is False else [],
        "joulemap_version": __version__,
        "specs": [json.loads(spec.to_json()) for spec in dataset.specs.values()],
        "units": {name: dataset.unit(name) for name in dataset.cost_names},
        "device": dataset.device,
        "protocol": dataset.protocol,
        **({"judgement": dataset.judgement.to_dict()} if dataset.judgement else {}),
        "source": dataset.source,
    }
    frame = dataset.to_pandas()
    sparsity = [name for name in frame.columns if str(name).startswith("sparsity_")]
    _write_frame(folder / MEASUREMENTS, frame.drop(columns=sparsity), about)
    texts = {
        "device.json": json.dumps(dataset.device, indent=1, sort_keys=True),
        "protocol.json": json.dumps(dataset.protocol, indent=1, sort_keys=True),
        "README.md": dataset_card(dataset),
    }
    if len(dataset.specs) == 1:
        texts["spec.json"] = dataset.spec.to_json()
    for name, text in texts.items():
        write_atomically(folder / name, f"{text}\n")


def _write_frame(path: Path, frame: pd.DataFrame, about: Mapping[str, Any]) -> None:
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot hold the dataset: {str(error)[:200]}") from error
    write_parquet(path, table, _KEY, about)
