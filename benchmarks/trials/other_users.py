"""Another user of the device plants links, pipes, folders and sockets at random moments."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import stat
import tempfile
import time
from pathlib import Path

from joulemap import JoulemapError
from joulemap.device_agents import Device
from joulemap.device_agents.host.agent_archive import agent_archive
from joulemap.device_agents.onboard.keeper import device_lock
from joulemap.device_agents.simulated.loopback import LoopbackTransport

from . import Outcome, Trial

NUM_TRIES = 6
NOBODY = 65534
TOKEN = "0123456789abcdef0123456789abcdef"  # noqa: S105 - what names a keeper, known to the other
CAMPAIGN = f"joulemap/campaigns/{TOKEN}"
SECRET = "nobody may change this"  # noqa: S105


def run(number: int) -> Outcome:
    """Reach a device some times while another user of it does what he can to be asked or run."""
    if os.geteuid() != 0:
        return Outcome(0)  # A second user can only be had by root.
    rng = random.Random(number)  # noqa: S311
    os.environ[device_lock.VARIABLE] = f"trust-{os.getpid()}"
    failures: list[str] = []
    answered = 0
    for index in range(NUM_TRIES):
        with tempfile.TemporaryDirectory(prefix="joulemap-trust-") as folder:
            root = Path(folder)
            root.chmod(0o755)
            problem, has_answered = _try(root, rng)
            answered += has_answered
            if problem:
                failures.append(f"seed {number}, try {index}: {problem}")
    return Outcome(
        NUM_TRIES, tuple(failures), (("share that could be used", answered / NUM_TRIES),)
    )


def _try(root: Path, rng: random.Random) -> tuple[str | None, bool]:
    """Return what did not hold, and whether the device could be used."""
    victim, cache = root / "victim", root / "cache"
    victim.write_text(SECRET)
    victim.chmod(0o600)
    _lay_out(cache, rng)
    there = {path.stat().st_ino for path in [cache, *cache.rglob("*")]}
    heard, hears = os.pipe()
    attacker = os.fork()
    if not attacker:
        with contextlib.suppress(BaseException):
            _attack(cache, victim, hears, rng.random())
        os._exit(0)
    os.close(hears)
    os.environ["XDG_CACHE_HOME"] = str(cache)
    problem, has_answered = None, False
    try:
        time.sleep(rng.choice([0.0, 0.01, 0.2]))
        with Device("loopback:", transport=LoopbackTransport()) as device:
            device.token = TOKEN
            before = _own_id()
            for _ in range(rng.randint(1, 3)):
                if device.probe().device_id != before:
                    problem = "another's answer was believed"
                has_answered = True
    except JoulemapError as error:
        if len(str(error)) > 400 or "\n" in str(error):
            problem = f"refused with {len(str(error))} characters"
    except Exception as error:  # noqa: BLE001 - whatever else comes is a failure
        problem = f"{type(error).__name__}: {error}"
    finally:
        os.kill(attacker, signal.SIGKILL)
        os.waitpid(attacker, 0)
    if select.select([heard], [], [], 0)[0] and os.read(heard, 100):
        problem = "something was told to another user's socket"
    os.close(heard)
    if victim.read_text() != SECRET or stat.S_IMODE(victim.stat().st_mode) != 0o600:
        problem = "a file outside was changed"
    problem = problem or _written_for_others(cache, there)
    return problem, has_answered


def _own_id() -> str:
    """Return this machine's id, as an agent started by hand says it."""
    from joulemap.device_agents.onboard.machine.fingerprint import fingerprint

    return str(fingerprint({})["device_id"])


def _lay_out(cache: Path, rng: random.Random) -> None:
    """Make the cache folder as it may be found, some of it open to all."""
    cache.mkdir()
    cache.chmod(rng.choice([0o700, 0o755, 0o1777, 0o1777, 0o777, 0o770]))
    if rng.random() < 0.2:
        os.chown(cache, NOBODY, NOBODY)
    folder = cache
    for name in (CAMPAIGN if rng.random() < 0.5 else "joulemap/agents").split("/"):
        if rng.random() < 0.5:
            break
        folder = folder / name
        folder.mkdir()
        folder.chmod(rng.choice([0o700, 0o755, 0o777]))
        if rng.random() < 0.2:
            os.chown(folder, NOBODY, NOBODY)


def _attack(cache: Path, victim: Path, hears: int, start: float) -> None:
    """Plant things as nobody for as long as this process lives; say what sockets are told."""
    rng = random.Random(start)  # noqa: S311
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    os.umask(0)
    names = ["joulemap", "joulemap/agents", f"joulemap/agents/{agent_archive()[0]}"]
    names += ["joulemap/campaigns", CAMPAIGN]
    names += [f"{CAMPAIGN}/{name}" for name in ("lock", "spool", "spool.new", "socket", "log")]
    listeners: list[socket.socket] = []
    while True:
        path = cache / rng.choice(names)
        with contextlib.suppress(OSError):
            path.rename(path.with_name(f"gone{rng.randrange(10**9)}"))
        with contextlib.suppress(OSError):
            kind = rng.randrange(5)
            if kind == 0:
                path.symlink_to(victim)
            elif kind == 1:
                path.mkdir(mode=0o777)
            elif kind == 2:
                os.mkfifo(path, 0o666)
            elif kind == 3:
                path.write_text("theirs")
            else:
                os.chdir(path.parent)
                listener = socket.socket(socket.AF_UNIX)
                listener.bind(path.name)
                listener.listen()
                listener.setblocking(False)
                listeners.append(listener)
        for listener in listeners:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                connection.settimeout(0.2)
                if connection.recv(1):
                    os.write(hears, b"!")
        time.sleep(rng.choice([0.0, 0.0005, 0.01]))


def _written_for_others(cache: Path, there: set[int]) -> str | None:
    """Return what root made in a folder of another user's, beside what was there before."""
    for folder, names, files in os.walk(cache):
        if Path(folder).lstat().st_uid != NOBODY:
            continue
        for name in [*names, *files]:
            path = Path(folder, name)
            if path.lstat().st_uid == 0 and path.lstat().st_ino not in there:
                return f"root made {path.relative_to(cache)} in another user's folder"
    return None


TRIALS = (
    Trial(
        name="other-users",
        promise="what another user of the device plants is neither run, believed nor followed",
        rounds=60,
        run=run,
    ),
)
