"""What a campaign leaves, on the device and here, and whom it speaks to meanwhile: each is a list."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from joulemap.device_agents import Device
from joulemap.device_agents.host.agent_archive import agent_archive
from joulemap.device_agents.onboard.ready_answer import ReadyAnswer
from joulemap.profiler.command_line import cli

from ...calm_judgement import calm_file
from ...device_agents.adb_phone import own_adb_server, phone_root, running_phone
from ...device_agents.processes import process_state, wait_for_states
from ...device_agents.sshd import SshClientHome, Sshd

APT_LINE = "apt-get install -y --no-install-recommends strace"
TEMPLATES = ".cache/joulemap/templates"
# Whom a process may speak to: others on the same machine, and none of them a name server.
LOCAL = re.compile(
    r"sa_family=(AF_UNIX|AF_UNSPEC|AF_NETLINK)"
    r'|sa_family=AF_INET, sin_port=htons\((?!53\))\d+\), sin_addr=inet_addr\("(127\.|0\.0\.0\.0")'
    r'|sa_family=AF_INET6, sin6_port=htons\((?!53\))\d+\).*"::(1|ffff:127\.[0-9.]+)?"'
)
SPOKEN = re.compile(r"\b(connect|sendto|sendmsg|sendmmsg)\(.*sa_family=")


# The command, which does not wait for a quiet machine.
AT_ONCE = """
import sys
from joulemap.device_agents import Device
from joulemap.device_agents.onboard.ready_answer import ReadyAnswer
from joulemap.profiler.command_line import cli
Device.wait_until_ready = lambda self, gate: ReadyAnswer(is_ready=True)
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "wait_until_ready", lambda self, gate: ReadyAnswer(is_ready=True))


def campaign(device: str, out: Path, *more: str) -> list[str]:
    """Return the command of a small campaign that needs no quiet machine."""
    return [
        *("profile", device, "--network", "lenet5", "--samples", "2", "--visits", "1"),
        *("--visit-s", "0.05", "--rel-error", "0.9", "--meter", "none", "--out", str(out)),
        *("--config", str(calm_file(out.parent))),
        *more,
    ]


def tree(folder: Path) -> dict[str, str]:
    """Return what lies in a folder: path to kind, mode and a hash of the content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        digest = hashlib.sha256(content).hexdigest()[:8]
        found[str(path.relative_to(folder))] = f"{status.st_mode:o} {digest}"
    return found


def new(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Return what is there now and was not so before."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def strace(log: Path) -> tuple[str, ...]:
    """Return the command that writes down whom a program and all that it starts speak to."""
    program = shutil.which("strace")
    if program is None:
        pytest.fail(f"strace is missing; install it with:\n{APT_LINE}", pytrace=False)
    return (program, "-f", "-qq", "-s", "64", "-e", "trace=network", "-o", str(log))


def strangers(log: Path) -> list[str]:
    """Return the calls of a log that speak to others than this machine's own programs."""
    lines = log.read_text(errors="replace").splitlines()
    assert any("socket(" in line for line in lines), "nothing was written down"
    return [line for line in lines if SPOKEN.search(line) and not LOCAL.search(line)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This side's home folder, with nothing in it."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for name in ("SSH_AUTH_SOCK", "XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def traced(tmp_path: Path, home: Path) -> Iterator[Sshd]:
    """A server whose every call to a network is written down in `calls`."""
    server = Sshd(tmp_path / "board")
    SshClientHome(home, server)
    server.start(prefix=strace(server.folder / "calls"))
    yield server
    assert server._process is not None
    pids = server.descendants()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server._process.wait(30)
    wait_for_states(pids, "ZX")
    server._process = None
    server.release_port()


def wait_until_gone(server: Sshd) -> None:
    deadline = time.monotonic() + 30
    while [pid for pid in server.agents() if process_state(pid) not in ("", "Z", "X")]:
        assert time.monotonic() < deadline, "agents or keepers stay"
        time.sleep(0.02)


def temporary() -> set[str]:
    """Return what of joulemap's lies in this machine's folder of temporary files."""
    return {path.name for path in Path("/tmp").glob("joulemap*")}  # noqa: S108


def test_over_ssh_the_agents_file_stays_and_with_clean_nothing(
    traced: Sshd, home: Path, tmp_path: Path
) -> None:
    there, here, passing = tree(traced.home), tree(home), temporary()
    assert cli.main(campaign(f"ssh:{traced.address}", tmp_path / "one")) == 0
    wait_until_gone(traced)
    agent = f".cache/joulemap/agents/{agent_archive()[0]}"
    folders = {".cache", ".cache/joulemap", ".cache/joulemap/agents"}
    assert new(there, tree(traced.home)) == {*folders, agent}
    (template,) = (home / TEMPLATES).iterdir()
    kept = {*(".cache", ".cache/joulemap", TEMPLATES), f"{TEMPLATES}/{template.name}"}
    assert new(here, tree(home)) == kept
    assert cli.main(campaign(f"ssh:{traced.address}", tmp_path / "two", "--clean")) == 0
    wait_until_gone(traced)
    # The user's own folder, which was not there before, is empty now.
    assert new(there, tree(traced.home)) == {".cache"}
    assert new(here, tree(home)) == kept
    assert temporary() <= passing
    assert strangers(traced.folder / "calls") == []


def test_a_new_host_is_one_line_of_known_hosts(traced: Sshd, home: Path) -> None:
    known = home / ".ssh/known_hosts"
    known.unlink()
    before = tree(home)
    assert cli.main(["probe", f"ssh:{traced.address}", "--accept-new-host-key"]) == 0
    assert new(before, tree(home)) == {".ssh/known_hosts"}
    assert known.read_text().split()[:2] == [f"[127.0.0.1]:{traced.port}", "ssh-ed25519"]
    assert stat.S_IMODE(known.stat().st_mode) == 0o600


@pytest.mark.parametrize("umask", [0o000])
def test_on_this_machine_the_agents_file_stays_and_with_clean_nothing_of_the_device(
    home: Path, tmp_path: Path, umask: int
) -> None:
    """In a program of its own, that was told nothing of telemetry."""
    log, passing = tmp_path / "calls", temporary()
    environment = {**os.environ, "HOME": str(home)}

    def run(*arguments: str) -> None:
        command = [*strace(log), sys.executable, "-c", AT_ONCE, *arguments]
        subprocess.run(command, env=environment, check=True, umask=umask, capture_output=True)
        assert strangers(log) == []

    run(*campaign("local:", tmp_path / "one"))
    agent = f".cache/joulemap/agents/{agent_archive()[0]}"
    (template,) = (home / TEMPLATES).iterdir()
    folders = {".cache", ".cache/joulemap", ".cache/joulemap/agents", TEMPLATES}
    assert set(tree(home)) == {*folders, agent, f"{TEMPLATES}/{template.name}"}
    assert {path.lstat().st_mode & 0o077 for path in home.rglob("*")} == {0}
    run(*campaign("local:", tmp_path / "two", "--clean"))
    kept = {".cache", ".cache/joulemap", TEMPLATES, f"{TEMPLATES}/{template.name}"}
    assert set(tree(home)) == kept
    assert temporary() <= passing


def test_over_adb_the_agents_file_stays_and_with_clean_nothing(home: Path, tmp_path: Path) -> None:
    os.environ.pop("ORT_DISABLE_TELEMETRY", None)
    root, log = phone_root_of(home), tmp_path / "calls"
    with own_adb_server(home), running_phone(root, prefix=strace(log)) as phone:
        from joulemap.device_agents.transports.adb import AdbTransport

        transport = AdbTransport(phone.address)

        def listed() -> set[str]:
            folders = ["/data", "/root", "/tmp", "/run"]  # noqa: S108
            return set(transport.run(["find", *folders], 60).stdout.decode().split("\n"))

        def running() -> set[str]:
            """Return the commands that run there, but for the one that asks."""
            script = "for p in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$p; echo; done 2>/dev/null"
            lines = transport.run(["sh", "-c", script], 60).stdout.decode().split("\n")
            return {line for line in lines if "agent-" in line}

        before = listed()
        assert cli.main(campaign(f"adb:{phone.address}", tmp_path / "one")) == 0
        folder = "/data/local/tmp/joulemap"
        agent = f"{folder}/agents/{agent_archive()[0]}"
        assert listed() - before == {folder, f"{folder}/agents", agent}
        assert running() == set()
        assert cli.main(campaign(f"adb:{phone.address}", tmp_path / "two", "--clean")) == 0
        assert listed() == before
        assert running() == set()
    assert strangers(log) == []


def phone_root_of(home: Path) -> str:
    """Return the phone's root, which lies in the home folder that the tests were started in."""
    with pytest.MonkeyPatch.context() as patch:
        import pwd

        patch.setenv("HOME", pwd.getpwuid(os.getuid()).pw_dir)
        assert str(home)
        return phone_root()
