"""Pipes, sockets, devices, folders and giants in the place of every file that a command is given.

Each command ends within seconds with exit code 2 and one sentence, and what was there is there still.
Devices are nodes of the null device, made in a folder of the trial's own.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import socket
import stat
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from joulemap import InputError
from joulemap.device_agents.errors import StableDeviceError
from joulemap.device_agents.transports.ssh_host_keys import known_keys
from joulemap.profiler.command_line import cli
from trials import Outcome, Trial
from trials.hostile_files import Files, Hang, limited

SLOW_S = 10.0
# Kinds that can stand for a file to be read; the first ones also for one to be written.
WRITTEN = ("pipe", "socket", "device", "folder", "link to pipe", "link to device")
READ = (*WRITTEN, "no folder", "giant", "dangling link", "loop", "zero")
# Command lines with the place of the special file, and whether it is written.
COMMANDS: tuple[tuple[str, bool], ...] = (
    ("import {} --spec lenet5 --out new", False),
    ("import table.csv --spec {}.json --out new", False),
    ("import table.csv --spec lenet5 --out {}", True),
    ("fit {} --out new.safetensors", False),
    ("fit run --out {}", True),
    ("fit run --model transfer --from {} --out new.safetensors", False),
    ("predict {} --widths 1,1,1,1", False),
    ("predict predictor.safetensors --csv {}", False),
    ("evaluate {} run", False),
    ("evaluate predictor.safetensors {}", False),
    ("report run --predictor {} --out new.html", False),
    ("report {} --predictor predictor.safetensors --out new.html", False),
    ("report run --predictor predictor.safetensors --out {}", True),
    ("export {} --to onnx --out new.onnx", False),
    ("export predictor.safetensors --to onnx --out {}", True),
    ("export predictor.safetensors --to torch --out {}.pt2", True),
    ("profile sim:{}.toml --network lenet5 --samples 4 --out new", False),
    ("profile sim:eyeriss --network lenet5 --samples 4 --out {}", True),
    ("profile sim:eyeriss --network lenet5 --samples 4 --from {} --out new", False),
)
# Files of a folder that is given.
INSIDE: tuple[tuple[str, str], ...] = (
    ("evaluate predictor.safetensors {}", "journal.jsonl"),
    ("fit {} --out new.safetensors", "journal.jsonl"),
    ("report {} --predictor predictor.safetensors --out new.html", "journal.jsonl"),
    ("profile sim:eyeriss --network lenet5 --samples 4 --out {}", "journal.jsonl"),
    ("evaluate predictor.safetensors {}", "measurements.parquet"),
    ("fit {} --model lookup --out new.safetensors", "layers.parquet"),
)


def make(path: Path, kind: str) -> contextlib.ExitStack:
    """Put a special file there; what is returned keeps it."""
    kept = contextlib.ExitStack()
    behind = path.with_name(f"behind-{path.name}")
    if kind.startswith("link to"):
        make(behind, kind.removeprefix("link to "))
        path.symlink_to(behind)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        kept.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
    elif kind == "folder":
        path.mkdir()
        (path / "something").touch()
    elif kind == "device":
        try:
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            path.symlink_to(os.devnull)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "giant":
        path.touch()
        os.truncate(path, 1 << 42)
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "loop":
        path.symlink_to(path.name)
    return kept


def seen(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return what lies in a folder, by kind, inode and device number."""
    found = {}
    for each in folder.iterdir():
        status = each.lstat()
        found[each.name] = (status.st_mode, status.st_ino, status.st_rdev)
    return found


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder that is the home as well."""
    before, home = Path.cwd(), os.environ.get("HOME")
    os.chdir(folder)
    os.environ["HOME"] = str(folder)
    try:
        yield
    finally:
        os.chdir(before)
        if home is not None:
            os.environ["HOME"] = home


def attempt(line: str, place: Path, kind: str) -> str | None:
    """Run a command on a special file; say what is wrong with how it ends."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with make(place, kind):
        before = seen(place.parent)
        name = str(place / "below" if kind == "no folder" else place)
        arguments = [word.format(name.removesuffix(Path(word).suffix)) for word in line.split()]
        began = time.monotonic()
        error = io.StringIO()
        try:
            with (
                limited(),
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(error),
            ):
                code = cli.main(arguments)
        except Hang:
            return "hangs"
        except BaseException as escaped:  # noqa: BLE001 - whatever comes out is a finding
            where = traceback.extract_tb(escaped.__traceback__)[-1]
            return f"{escaped!r:.200} at {where.filename}:{where.lineno}"
        said = error.getvalue()
        if code != 2 or "Traceback" in said or len(said) > 1000:
            return f"ends with {code}: {said[:300]}"
        if seen(place.parent) != before:
            return f"left {sorted(seen(place.parent))} instead of {sorted(before)}"
        took = time.monotonic() - began
        return f"took {took:.0f} s" if took > SLOW_S else None


def known_hosts(place: Path, kind: str) -> str | None:
    """Read known host keys from a special file; say what is wrong."""
    with make(place, kind):
        try:
            with limited():
                known_keys("pi", [place])
        except (InputError, StableDeviceError):
            return None
        except Hang:
            return "hangs"
    return None if kind in ("no folder", "dangling link") else "is read"


def commands(seed: int, num: int) -> Outcome:
    """Return what commands did with special files."""
    draw = random.Random(f"special/{seed}")  # noqa: S311 - drawn again by the same seed
    failures = []
    folder = Path(tempfile.mkdtemp(prefix="special-"))
    try:
        Files(folder)
        with inside(folder):
            for number in range(num):
                place = folder / f"try{number}" / "special"
                match draw.randrange(8):
                    case 0:
                        kind = draw.choice([each for each in READ if each != "no folder"])
                        said, line = known_hosts(_made(place), kind), "known_hosts"
                    case 1 | 2:
                        line, name = draw.choice(INSIDE)
                        kind = draw.choice(
                            [each for each in READ if each not in ("no folder", "dangling link")]
                        )
                        place = _of_run(folder, place, name)
                        line = line.format(place.parent)
                        said = attempt(line, place, kind)
                    case 3:
                        kind = draw.choice(("pipe", "socket", "folder", "giant", "zero"))
                        place, line = folder / ".ssh/config", "probe ssh://pi"
                        said = attempt(line, place, kind)
                        shutil.rmtree(place.parent)
                    case _:
                        line, is_written = draw.choice(COMMANDS)
                        kind = draw.choice(WRITTEN if is_written else READ)
                        suffix = next((Path(w).suffix for w in line.split() if "{}" in w), "")
                        place = place.with_suffix(suffix)
                        said = attempt(line, place, kind)
                if said is not None:
                    failures.append(f"seed {seed}, {line} with {kind}: {said}")
    finally:
        shutil.rmtree(folder)
    return Outcome(num, tuple(failures))


def _made(place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _of_run(folder: Path, place: Path, name: str) -> Path:
    """Return the place of a file in a copy of the campaign's folder, where it is not any more."""
    shutil.copytree(folder / "run", place.parent / "run")
    for each in {name, "journal.jsonl"} if name == "measurements.parquet" else {name}:
        (place.parent / "run" / each).unlink(missing_ok=True)
    return place.parent / "run" / name


TRIALS = (
    Trial(
        "special-files",
        "a command given a pipe, a socket, a device or a giant ends with 2, and leaves it there",
        8,
        lambda seed: commands(seed, 100),
        600,
    ),
)
