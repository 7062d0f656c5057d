"""The contract of meters as a pytest class; `testing` offers it to the tests of new ones."""

# ruff: noqa: S101 - it consists of tests

from __future__ import annotations

import errno
import fnmatch
import importlib
import math
from pathlib import Path
from typing import Any, ClassVar

import pytest

from .onboard.energy.meter import (
    COUNTER,
    ESTIMATE,
    SAMPLER,
    Meter,
    MeterError,
    MeterGone,
    MeterInfo,
    Missing,
)
from .onboard.files import Files, OpenFile

# What no device of this field uses.
MAX_PLAUSIBLE_W = 100_000.0


class FaultyFiles(Files):
    """A folder's files with faults on demand.

    Args:
        root: What the paths begin at.

    Attributes:
        failure: Number of the error that every read of every file ends in, also of those that are
            open; 0 for none.
        denied: Patterns of paths that may not be opened and read, as of an ordinary user.
    """

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.failure = 0
        self.denied: tuple[str, ...] = ()

    def open(self, path: str) -> OpenFile:
        """Return the file, or what stands in its way."""
        relative = path.lstrip("/")
        self.check(relative)
        return _FaultyFile(self, relative)

    def list(self, path: str) -> list[str]:
        """Return the names in a folder, none once the hardware is gone."""
        return [] if self.failure or self.is_closed(path) else super().list(path)

    def is_closed(self, path: str) -> bool:
        """Return whether a folder is among those that may not be read."""
        denied = any(fnmatch.fnmatch(path.strip("/"), pattern) for pattern in self.denied)
        return denied or super().is_closed(path)

    def check(self, path: str) -> None:
        """Raise the error that a file now ends in."""
        if self.failure:
            raise OSError(self.failure, "No such device", path)
        if any(fnmatch.fnmatch(path, pattern) for pattern in self.denied):
            raise PermissionError(errno.EACCES, "Permission denied", path)


class _FaultyFile(OpenFile):
    def __init__(self, files: FaultyFiles, path: str) -> None:
        self._files, self._path = files, path
        super().__init__(files.path(path))

    def read(self) -> str:
        self._files.check(self._path)
        return super().read()


class MeterContract:
    """What every module in `meters/` must do. Subclasses say which, and make its source.

    The source lies in a folder that stands in for `/` (or, for a library, wherever `make` puts it).

    Attributes:
        module: The module in `meters/`; where `name` is given, the full name of one elsewhere.
        name: What its meters are called by; left out for a module in `meters/`, which has that name.
        protected: Patterns, relative to the folder, of files that an ordinary user may not read; a
            denial must be told with the file and the remedy. Empty for sources without such files.
        tolerance: Relative error of a reading against what `step` says, rounding included.
    """

    module: ClassVar[str]
    name: ClassVar[str] = ""
    protected: ClassVar[tuple[str, ...]] = ()
    tolerance: ClassVar[float] = 1e-6

    def make(self, folder: Path) -> None:
        """Make the source with one meter or more; the first one found is looked at closely.

        A counter that wraps should start a few steps below its range, so that the steps cross it.
        """
        raise NotImplementedError

    def step(self, folder: Path) -> float:
        """Let the source move on and return the truth about the first meter.

        Returns:
            Counters and estimates: joules added by this step, more than 0, less than the range.
            Samplers: the watts that it shows from now on, another value than before.
        """
        raise NotImplementedError

    def vanish(self, folder: Path, files: FaultyFiles) -> None:
        """Take the hardware away; files end in `ENODEV` unless a subclass knows better."""
        files.failure = errno.ENODEV

    # -- the tests -------------------------------------------------------------------------------

    @pytest.fixture
    def files(self, tmp_path: Path) -> FaultyFiles:
        """Return the files that meters are looked for in."""
        self.make(tmp_path)
        return FaultyFiles(str(tmp_path))

    def find(self, files: Files) -> list[Meter | Missing]:
        """Return what the module finds."""
        own = f"{__package__}.meters.{self.module}"
        module = importlib.import_module(self.module if self.name else own)
        return list(module.find(files))

    def meter(self, files: Files) -> Meter:
        """Return the first meter found."""
        found = self.find(files)
        meters = [item for item in found if not isinstance(item, Missing)]
        assert meters, f"no meter was found, only {found}"
        return meters[0]

    def test_its_description_is_complete_and_plausible(self, files: FaultyFiles) -> None:
        """Names, units, ranges and rates make sense; channels have names of their own."""
        found = self.find(files)
        channels = [item.info.channel for item in found if not isinstance(item, Missing)]
        assert channels
        assert len(set(channels)) == len(channels)
        for item in found:
            if isinstance(item, Missing):
                continue
            info = item.info
            assert isinstance(info, MeterInfo)
            assert info.name == (self.name or self.module)
            assert info.kind in (COUNTER, SAMPLER, ESTIMATE)
            assert info.domain
            for name in (info.name, info.channel):
                assert name
                assert not any(sign in name for sign in ":, \n")
            assert info.resolution is None or 0 < info.resolution < math.inf
            assert info.range_j is None or (info.kind != SAMPLER and 0 < info.range_j < math.inf)
            assert info.update_period_s is None or 0 < info.update_period_s <= 60
            assert 0 <= info.averaging_s <= 60
            assert 0 < info.max_power_w <= MAX_PLAUSIBLE_W
            assert 0 <= info.read_s <= 10
            assert all(isinstance(note, str) and note for note in info.notes)
            item.close()

    def test_readings_are_fresh_and_in_si_units(self, files: FaultyFiles, tmp_path: Path) -> None:
        """Every reading is what the source says at that moment, in J or W."""
        meter = self.meter(files)
        before = _number(meter.read(), meter.info)
        for _ in range(5):
            truth = self.step(tmp_path)
            now = _number(meter.read(), meter.info)
            change = now
            if meter.info.kind != SAMPLER:
                change = now - before
                if change < 0 and meter.info.range_j is not None:
                    change += meter.info.range_j
            slack = 2 * (meter.info.resolution or 0.0) if meter.info.kind != SAMPLER else 0.0
            assert change == pytest.approx(truth, rel=self.tolerance, abs=slack + 1e-9)
            before = now
        meter.close()

    def test_two_readings_of_one_moment_are_equal(self, files: FaultyFiles) -> None:
        """A source that has not moved reads the same: nothing is added or averaged on the way."""
        meter = self.meter(files)
        assert meter.read() == meter.read()
        meter.close()

    def test_it_closes_twice(self, files: FaultyFiles) -> None:
        """Closing again is harmless, and a new one can be found afterwards."""
        meter = self.meter(files)
        meter.read()
        meter.close()
        meter.close()
        again = self.meter(files)
        again.read()
        again.close()

    def test_it_says_when_it_is_gone(self, files: FaultyFiles, tmp_path: Path) -> None:
        """Hardware that vanishes while it is read raises `MeterGone`, again and again."""
        meter = self.meter(files)
        meter.read()
        self.vanish(tmp_path, files)
        for _ in range(2):
            with pytest.raises(MeterGone) as caught:
                meter.read()
            assert len(str(caught.value)) > 10
        meter.close()

    def test_a_denial_names_file_and_remedy(self, files: FaultyFiles) -> None:
        """Files that may not be read make `Missing`, with the file and one line on what to do."""
        files.denied = self.protected
        missing = [item for item in self.find(files) if isinstance(item, Missing)]
        if not self.protected:
            return
        assert missing
        names = [pattern.rpartition("/")[2].strip("*") for pattern in self.protected]
        for item in missing:
            assert item.name == (self.name or self.module)
            assert any(name in item.reason for name in names)
            assert item.remedy
            assert "\n" not in item.remedy + item.reason

    def test_a_denial_while_it_is_read_is_an_error(self, files: FaultyFiles) -> None:
        """A permission that is taken away in the middle raises `MeterError` with the file."""
        if not self.protected:
            return
        meter = self.meter(files)
        meter.read()
        files.denied = self.protected
        with pytest.raises(MeterError):
            meter.read()
        meter.close()

    def test_its_state_is_a_table_of_words(self, files: FaultyFiles) -> None:
        """A meter that tells a state (`state()`, such as a battery's) tells text by name."""
        meter = self.meter(files)
        state = getattr(meter, "state", None)
        if state is not None:
            for name, word in state().items():
                assert isinstance(name, str)
                assert isinstance(word, str)
        meter.close()

    def test_where_the_hardware_is_absent_nothing_is_found(self, tmp_path: Path) -> None:
        """An empty machine has no such meter, and looking for it raises nothing."""
        folder = tmp_path / "empty"
        folder.mkdir()
        assert self.absent(FaultyFiles(str(folder))) == []

    def absent(self, files: Files) -> list[Any]:
        """Return what is found on a machine without the hardware; subclasses may hide a library."""
        return list(self.find(files))


def _number(value: Any, info: MeterInfo) -> float:
    """Return a reading once it is a number that the meter can show."""
    assert isinstance(value, float)
    assert math.isfinite(value)
    if info.kind == SAMPLER:
        assert abs(value) <= info.max_power_w
    else:
        assert value >= 0
        assert info.range_j is None or value <= info.range_j
    return value
