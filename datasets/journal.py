"""A campaign's journal: one durable line per visit, before the next one starts.

The file is JSON lines. The first line describes the campaign, every further line is a visit or says
that an earlier visit was rejected, with the reason; their checksums are chained (`journal_lines`). A line counts
once its newline is on disk, so a process or a machine that dies while writing leaves at most one
torn last line, which readers report and the next writer cuts off. Anything else that does not check is corruption and is refused.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from joulemap import InputError, interruption
from joulemap.regular_files import open_regular
from joulemap.showable_text import showable_answer

from .answer_bounds import cleaned
from .device_identity import is_same_device
from .estimation import VisitKey
from .journal_lines import FIRST_PREVIOUS, Line, encode, read_lines
from .judgement_settings import DEFAULT_JUDGEMENT, UNRECORDED_JUDGEMENT, JudgementSettings
from .network_spec import NetworkSpec
from .records import RECORD_VERSION, Conditions, Visit
from .spec_difference import difference, is_same_network

FILE_NAME = "journal.jsonl"
READ_VERSIONS = (1, 2, RECORD_VERSION)
# A program that is just being started has, until it begins, what its parent has open: the lock of a
# campaign that was killed at that moment is let go of a little later.
LOCK_WAIT_S = 1.0
LOCK_LOOK_S = 0.02


@dataclass(frozen=True)
class CampaignRecord:
    """What a campaign measures, where and how: the journal's first line.

    Args:
        spec: The network.
        conditions: Batch, resolution, precision, runtime, threads.
        device: The device's fingerprint; `device_id` identifies it.
        runtime_version: Version of the runtime on the device.
        protocol: How a variant is measured.
        sampling: Name of the sampler.
        seed: Seed of the sampler and of the visits' order.
        reference_widths: Channels of the reference variant.
        joulemap_version: Of the program that started the campaign.
        meters: What is known about the meter that counts, and one that checks it; none without.
        meter_note: Why these meters, or why none.
        judgement: What its visits are judged by; older journals do not say it.
        settings: What was asked for when the campaign began; empty in older journals. What of
            it makes another campaign is in the other fields, which alone are compared.
        schema_version: Of the records.
    """

    spec: NetworkSpec
    conditions: Conditions
    device: Mapping[str, Any]
    runtime_version: str
    protocol: Mapping[str, Any]
    sampling: str
    seed: int
    reference_widths: tuple[int, ...]
    joulemap_version: str
    meters: tuple[Mapping[str, Any], ...] = ()
    meter_note: str = ""
    judgement: JudgementSettings = DEFAULT_JUDGEMENT
    settings: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = RECORD_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Return the record as a dictionary for JSON."""
        # Older records stay as they are: an older joulemap may go on with them.
        is_said = self.schema_version >= RECORD_VERSION or self.judgement != UNRECORDED_JUDGEMENT
        return {
            "spec": json.loads(self.spec.to_json()),
            "conditions": vars(self.conditions),
            "device": dict(self.device),
            "runtime_version": self.runtime_version,
            "protocol": dict(self.protocol),
            **({"judgement": self.judgement.to_dict()} if is_said else {}),
            "sampling": self.sampling,
            "seed": self.seed,
            "reference_widths": list(self.reference_widths),
            "joulemap_version": self.joulemap_version,
            "meters": [dict(meter) for meter in self.meters],
            "meter_note": self.meter_note,
            **({"settings": dict(self.settings)} if self.settings else {}),
            "schema_version": self.schema_version,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> CampaignRecord:
        """Return the record that `to_dict` wrote.

        Raises:
            InputError: Fields are missing or invalid, or the version is another.
        """
        try:
            if content["schema_version"] not in READ_VERSIONS:
                raise InputError(
                    f"its records have version {content['schema_version']}; this joulemap reads "
                    f"versions {', '.join(map(str, READ_VERSIONS))}"
                )
            return cls(
                **{
                    **content,
                    "spec": NetworkSpec.from_json(json.dumps(content["spec"])),
                    "conditions": Conditions(**content["conditions"]),
                    "reference_widths": tuple(content["reference_widths"]),
                    "meters": tuple(dict(meter) for meter in content.get("meters", ())),
                    "judgement": _judgement(content),
                    "settings": dict(content.get("settings", {})),
                }
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"its first line describes no campaign: {error}") from error

    def differences(self, other: CampaignRecord) -> list[str]:
        """Return what makes two records different campaigns, as texts; empty when nothing does."""
        pairs: dict[str, tuple[Any, Any]] = {
            "network": _networks(self.spec, other.spec),
            "device": _devices(self.device, other.device),
            "sampling": (self.sampling, other.sampling),
            "seed": (self.seed, other.seed),
            "runtime version": (self.runtime_version, other.runtime_version),
            "reference widths": (self.reference_widths, other.reference_widths),
            "meter": (_meters(self.meters), _meters(other.meters)),
        }
        for name in vars(self.conditions):
            pairs[name] = (getattr(self.conditions, name), getattr(other.conditions, name))
        names = {*self.protocol, *other.protocol}
        if self.schema_version < RECORD_VERSION:
            # Settings that came later had no say in what was measured.
            names = {*self.protocol}
        for name in sorted(names):
            pairs[f"protocol {name}"] = (self.protocol.get(name), other.protocol.get(name))
        for name, value in self.judgement.to_dict().items():
            pairs[f"judgement {name}"] = (value, getattr(other.judgement, name))
        return [f"{name}: {a} there, {b} here" for name, (a, b) in pairs.items() if a != b]


def _judgement(content: Mapping[str, Any]) -> JudgementSettings:
    """Return what a first line says of the judgement, or what journals that say nothing are judged by."""
    if "judgement" not in content:
        return UNRECORDED_JUDGEMENT
    return JudgementSettings.from_dict(content["judgement"])


def _meters(meters: Sequence[Mapping[str, Any]]) -> str:
    """Return which meters are read, in the state that they are in."""
    texts = []
    for meter in meters:
        state = ", ".join(f"{key} {word}" for key, word in dict(meter.get("state") or {}).items())
        name = f"{meter.get('name')}:{meter.get('channel')}"
        texts.append(f"{name} ({state})" if state else name)
    return " checked by ".join(texts) or "none"


def _networks(first: NetworkSpec, second: NetworkSpec) -> tuple[str, str]:
    """Return the names of two networks, with what they come from, or what has changed, if it differs."""
    if is_same_network(first, second):
        return _network(second, ""), _network(second, "")
    is_one_place = first.source.partition("@")[0] == second.source.partition("@")[0]
    if is_one_place and (changed := difference(first, second)) is not None:
        return _network(first, ""), _network(second, f", where {changed}")
    if first.source == second.source:
        return _network(first, ""), _network(second, "")
    return _network(first, f" of {first.source[:80]}"), _network(
        second, f" of {second.source[:80]}"
    )


def _network(spec: NetworkSpec, origin: str) -> str:
    return f"{spec.name}{origin} ({spec.fingerprint[:12]})"


def _devices(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, str]:
    """Return the names of two devices, equal if they are one."""
    names = [
        f"{device.get('cpu_model') or 'unknown processor'} ({device.get('device_id')})"
        for device in (first, second)
    ]
    if is_same_device(first, second):
        return names[0], names[0]
    if names[0] == names[1]:
        # A copied disk in another machine, for example.
        names[1] += ", another one by its serial number, network card or machine id"
    return names[0], names[1]


@dataclass(frozen=True)
class JournalContent:
    """What a journal holds.

    Args:
        campaign: What is measured, where and how.
        visits: In the order in which they were made.
        rejections: Visits that the campaign rejected, with the reason.
        torn_bytes: Length of a torn last line, 0 if there is none.
        unusable: What a device said and cannot be used, a text for each line: such a visit counts
            as one that failed.
        checksums: Of each line, in order.
        damage: What is wrong with the first line that could not be used, where such a journal was
            asked for; None where every line can be used.
        is_chained: Whether each line vouches for the one before it; older journals' lines do not.
    """

    campaign: CampaignRecord
    visits: tuple[Visit, ...]
    rejections: Mapping[VisitKey, str]
    torn_bytes: int
    unusable: tuple[str, ...] = ()
    checksums: tuple[int, ...] = ()
    damage: str | None = None
    is_chained: bool = False

    @property
    def is_verified(self) -> bool:
        """Whether no line between the first and the last one can be missing."""
        return self.is_chained and self.damage is None


def read_journal(path: str | Path, *, allow_damaged: bool = False) -> JournalContent:
    """Return what a journal holds; a torn last line is left out and its length reported.

    Args:
        path: The journal's file.
        allow_damaged: Whether to take the lines before the first one that cannot be used, where
            there is such a line, instead of raising; `damage` then says what is wrong with it.

    Raises:
        InputError: The file cannot be read, or a line other than a torn last one does not check.
    """
    path = Path(path)
    content = _Reader()
    torn_bytes = 0
    damage = None
    for number, line in enumerate(read_lines(path), start=1):
        if isinstance(line, int):
            torn_bytes = line
            break
        try:
            content.add(line)
        except InputError as error:
            damage = f"line {number} of the journal {path} cannot be used: {error}"
            if number == 1 or not allow_damaged:
                raise InputError(f"{damage}; {_remedy(path, number)}") from error
            break
    if content.campaign is None:
        raise InputError(f"{path} is no journal: it has no complete line")
    return JournalContent(
        content.campaign,
        tuple(content.visits.values()),
        content.rejections,
        torn_bytes,
        tuple(content.unusable),
        tuple(content.checksums),
        damage,
        content.is_chained,
    )


class _Reader:
    """Takes the lines of a journal one by one."""

    def __init__(self) -> None:
        self.campaign: CampaignRecord | None = None
        self.visits: dict[VisitKey, Visit] = {}
        self.rejections: dict[VisitKey, str] = {}
        self.unusable: list[str] = []
        self.checksums: list[int] = []
        self.is_chained = False

    def add(self, line: Line) -> None:
        """Take the next line.

        Raises:
            InputError: It does not check, or says what cannot be.
        """
        if self.campaign is None:
            record, check, self.is_chained = line.first()
            record, problems = _described(record)
            self.unusable += [f"line 1: {problem}" for problem in problems]
            self.campaign = CampaignRecord.from_dict(record)
            self.checksums.append(check)
            return
        record, check = line.decode(previous=self.checksums[-1] if self.is_chained else None)
        if "rejected" in record:
            key, reason = _rejection(record)
            if key not in self.visits or key in self.rejections:
                raise InputError("it rejects a visit that is not there, or twice")
            self.rejections[key] = reason
        else:
            visit, unused = Visit.read(record)
            if unused is not None:
                self.unusable.append(f"line {len(self.checksums) + 1}: {unused}")
            if visit.key in self.visits:
                raise InputError("it repeats a visit that is there already")
            self.visits[visit.key] = visit
        self.checksums.append(check)


def _described(record: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a first line without what no device can truthfully say of itself, and what that was."""
    made, problems = dict(record), []
    for name, kind in (("device", "probe"), ("meters", "prepare")):
        if name in made:
            made[name], found = cleaned(kind, showable_answer(made[name]))
            problems += [f"{name}: {problem}" for problem in found]
    return made, problems


def _remedy(path: Path, number: int) -> str:
    """Return how to go on after a line that cannot be used."""
    if number == 1:
        return "nothing was changed: restore the file from a copy, or start in another folder"
    return (
        "nothing was changed. Restore the file from a copy, or go on in a new folder with the lines "
        f"before it: head -n {number - 1} {path.name} > FOLDER/{path.name} (in Python: "
        "CostDataset.load(..., allow_damaged=True))"
    )


class Journal:
    """The journal of a running campaign, locked against a second writer.

    Args:
        path: An existing journal file.

    Raises:
        InputError: It cannot be opened, another process writes to it, or it is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._fd = open_regular(self.path, os.O_RDWR)
        except OSError as error:
            raise InputError(f"the journal {path} cannot be opened: {error.strerror}") from error
        try:
            self._lock()
            self.content = read_journal(self.path)
            self._end = os.fstat(self._fd).st_size - self.content.torn_bytes
            self._last = self.content.checksums[-1]
            if self.content.torn_bytes:
                os.ftruncate(self._fd, self._end)
        except BaseException:
            os.close(self._fd)
            raise

    @classmethod
    def create(cls, path: str | Path, campaign: CampaignRecord) -> Journal:
        """Write a new journal with its first line and open it; an existing file is never replaced.

        Raises:
            InputError: The file exists, or the folder cannot be written.
        """
        path = Path(path)
        # Older records go on as what they are: an older joulemap may go on with them too.
        previous = FIRST_PREVIOUS if campaign.schema_version >= RECORD_VERSION else None
        line, _ = encode(campaign.to_dict(), previous=previous)
        try:
            fd, name = tempfile.mkstemp(dir=path.parent, prefix=".journal-")
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).chmod(0o644)
                # A link, not a rename: it fails when the journal exists.
                os.link(name, path)
                _sync_folder(path.parent)
            finally:
                Path(name).unlink()
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from error
        return cls(path)

    def append(self, visit: Visit) -> None:
        """Write one visit durably: when this returns, it survives a power cut.

        Raises:
            InputError: The disk is full or the file cannot be written. The journal is as before.
        """
        self._write(visit.to_dict())

    def reject(self, key: VisitKey, reason: str) -> None:
        """Write durably that a visit does not count, and why. The visit itself stays.

        Raises:
            InputError: As `append`.
        """
        self._write({"rejected": list(key), "reason": reason})

    def _write(self, record: Mapping[str, Any]) -> None:
        previous = self._last if self.content.is_chained else None
        line, check = encode(record, previous=previous)
        try:
            os.lseek(self._fd, self._end, os.SEEK_SET)
            view = memoryview(line)
            while view:
                view = view[os.write(self._fd, view) :]
            os.fsync(self._fd)
        except OSError as error:
            os.ftruncate(self._fd, self._end)
            raise InputError(
                f"cannot write to {self.path}: {error.strerror}; what was measured before is safe, "
                "the same command continues once there is room"
            ) from error
        self._end += len(line)
        self._last = check

    def close(self) -> None:
        """Release the file."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            take_lock(self._fd)
        except OSError as error:
            raise InputError(
                f"another joulemap campaign is writing to {self.path}; wait for it, or choose "
                "another folder"
            ) from error


def take_lock(fd: int) -> None:
    """Keep other programs off an open file or folder until it is closed.

    Raises:
        BlockingIOError: One holds it, and goes on.
        OSError: The file system has no locks.
    """
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            interruption.sleep(LOCK_LOOK_S)


def _rejection(record: Mapping[str, Any]) -> tuple[VisitKey, str]:
    key, reason = record["rejected"], record.get("reason")
    if (
        not isinstance(key, list)
        or [type(part) for part in key] != [str, int, int]
        or not isinstance(reason, str)
    ):
        raise InputError("it names no visit and reason")
    return (key[0], key[1], key[2]), reason


def _encode(record: Mapping[str, Any]) -> bytes:
    """Return a record as a line that vouches for itself alone, as journals of version 0.1.0 have them."""
    return encode(record, previous=None)[0]


def _decode(text: bytes) -> dict[str, Any]:
    """Return the record of such a line without its newline; raises InputError."""
    return Line(text).decode(previous=None)[0]


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
