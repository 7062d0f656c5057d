"""Prints what a remote device costs: bytes, round trips, delay, share of time, start.

python benchmarks/remote.py [bytes] [trips] [delay] [share] [start]

bytes   What goes over the link for 200 variants of MobileNetV1, one visit each, agent and template
        included, beside the sizes of those variants as ONNX files, which are materialised here.
trips   Round trips per visit, and bytes that passed while a variant was being timed.
delay   Wall time of campaigns over a link that is 50 ms late each way and over one that is not, in
        turns. Calls take a fixed time, so that only the link differs.
share   First warm-up call to last timed call, summed over visits, over the wall time of a campaign
        on this machine through an SSH server on loopback, MobileNetV1, at most 1.5 s per visit;
        then of the same campaign without a link.
start   Opening the device to the first visit's answer over the same server, agent cached.

The first three count and time at a link that is a pipe to a real agent on this machine; its keeper,
protocol and bytes are those of any remote device.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from joulemap.datasets.journal import read_journal
from joulemap.device_agents.device import Device, Preparation, StartGate
from joulemap.device_agents.simulated.loopback import LoopbackTransport, write_fixed_time_runtime
from joulemap.profiler import Protocol, networks, profile, sample
from joulemap.profiler.campaign.protocol import reference_widths
from joulemap.profiler.templates.export import cached_template

NETWORK = "mobilenet_v1"
DELAY_S = 0.05


def main() -> None:
    """Print the figures that are asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    figures: dict[str, Callable[[Path], None]] = {
        "bytes": print_bytes,
        "trips": print_trips,
        "delay": print_delay,
        "share": print_share,
        "start": print_start,
    }
    parser.add_argument("figures", nargs="*", choices=[[], *figures])
    cached_template(networks.get(NETWORK))
    for name in parser.parse_args().figures or figures:
        with tempfile.TemporaryDirectory(prefix="joulemap-") as folder:
            figures[name](Path(folder))


@contextlib.contextmanager
def variables(**changed: str) -> Iterator[None]:
    """Set environment variables while the block runs."""
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def loopback(
    folder: Path, call_s: float, delay_s: float = 0.0, windows: Path | None = None
) -> Iterator[LoopbackTransport]:
    """Give a link to a device with nothing cached, whose calls take a fixed time."""
    runtime = write_fixed_time_runtime(folder / "runtime", call_s, windows)
    with variables(
        XDG_CACHE_HOME=str(folder / "cache"),
        PYTHONPATH=f"{runtime}:{os.environ.get('PYTHONPATH', '')}",
    ):
        yield LoopbackTransport(delay_s)


def print_bytes(folder: Path) -> None:
    """Count what 200 variants need over the link."""
    spec = networks.get(NETWORK)
    protocol = Protocol(
        visits=1, max_visit_s=0.1, max_further_visits=0, has_revisits=False, start_timeout_s=0.1
    )
    with loopback(folder, 0.005) as link:
        profile(
            Device("loopback:", transport=link),
            spec,
            samples=200,
            out=folder / "run",
            protocol=protocol,
        )
    materialiser = cached_template(spec).materialiser()
    files = sum(len(materialiser.materialise(list(widths))) for widths in sample(spec, 200))
    print(f"bytes over the link for 200 variants of {NETWORK}, one visit each")
    print(f"  sent (agent, template, widths)   {link.sent / 1e6:10.2f} MB")
    print(f"  received (raw times)             {link.received / 1e6:10.2f} MB")
    print(f"  the variants as ONNX files       {files / 1e6:10.2f} MB")
    print(f"  fewer, sent alone                {files / link.sent:10.0f} times")
    print(f"  fewer, both ways                 {files / (link.sent + link.received):10.0f} times")


def print_trips(folder: Path) -> None:
    """Count round trips per visit, and traffic inside windows."""
    windows = folder / "windows"
    events: list[tuple[str, float]] = []
    protocol = Protocol(visits=3, max_further_visits=0, has_revisits=False, start_timeout_s=0.1)
    with loopback(folder, 0.005, windows=windows) as link:
        link.on_traffic = lambda way, count, at: events.append((way, at)) if count else None
        dataset = profile(
            Device("loopback:", transport=link),
            "lenet5",
            samples=16,
            out=folder / "run",
            protocol=protocol,
        )
    visits = len(read_journal(folder / "run" / "journal.jsonl").visits)
    ways = [way for way, _ in events]
    turns = sum(a == "sent" and b == "received" for a, b in itertools.pairwise(ways))
    spans = [tuple(map(float, line.split())) for line in windows.read_text().splitlines()]
    inside = sum(any(a < at < b for a, b in spans) for _, at in events)
    assert len(spans) >= 2 * visits
    print(f"round trips of a campaign of {visits} visits of {len(dataset)} variants")
    print(f"  all, start and end included      {turns:10d}")
    print(f"  per visit                        {turns / visits:10.2f}")
    print(f"  reads and writes of the link     {len(events):10d}")
    print(f"  of them while a variant ran      {inside:10d}")


def print_delay(folder: Path) -> None:
    """Compare campaigns over a late link with those over a prompt one."""
    protocol = Protocol(visits=3, max_further_visits=0, has_revisits=False, start_timeout_s=0.1)
    walls: dict[float, list[float]] = {0.0: [], DELAY_S: []}
    for number, delay_s in enumerate((0.0, DELAY_S, DELAY_S, 0.0)):
        place = folder / str(number)
        with loopback(place, 0.005, delay_s) as link:
            device = Device("loopback:", transport=link)
            began = time.perf_counter()
            profile(device, "lenet5", samples=16, out=place / "run", protocol=protocol)
            walls[delay_s].append(time.perf_counter() - began)
    prompt, late = sum(walls[0.0]) / 2, sum(walls[DELAY_S]) / 2
    print("wall time of a campaign of 48 visits whose calls take 5 ms")
    print(f"  prompt link                      {walls[0.0][0]:10.2f} and {walls[0.0][1]:.2f} s")
    print(
        f"  50 ms each way                   {walls[DELAY_S][0]:10.2f} and {walls[DELAY_S][1]:.2f} s"
    )
    print(f"  longer by                        {late / prompt - 1:10.1%}")


@contextlib.contextmanager
def ssh_server(folder: Path) -> Iterator[str]:
    """Give the URL of an SSH server on loopback with throw-away keys, and a home that knows it."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if sshd is None:
        sys.exit("sshd is missing; apt-get install -y --no-install-recommends openssh-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home, device = folder / "home" / ".ssh", folder / "device"
    home.mkdir(parents=True)
    device.mkdir()
    for key in (folder / "host_key", home / "id_ed25519"):
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(keygen, check=True)
    (home / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host_key.pub').read_text()}")
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host_key'}\n"
        f"AuthorizedKeysFile {home / 'id_ed25519.pub'}\nStrictModes no\nUsePAM no\n"
        f'PidFile none\nSetEnv "HOME={device}" "PATH={path}"\n'
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    try:
        with variables(HOME=str(folder / "home"), XDG_CACHE_HOME=cache):
            for _ in range(100):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.05)
            yield f"ssh://root@127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def print_share(folder: Path) -> None:
    """Print how much of a campaign is spent measuring, over SSH and without."""
    # The wait for an idle machine is left out: it is the machine's, not the link's.
    protocol = Protocol(max_visit_s=1.5, max_further_visits=0, start_timeout_s=0.1)
    with ssh_server(folder) as ssh:
        for name, url in (("over SSH", ssh), ("without a link", "local:")):
            out = folder / url.partition(":")[0]
            began = time.perf_counter()
            profile(url, NETWORK, samples=8, out=out, protocol=protocol)
            wall = time.perf_counter() - began
            visits = read_journal(out / "journal.jsonl").visits
            timings = [visit.timing for visit in visits if visit.timing is not None]
            measuring = sum(t.measuring_s for t in timings)
            reference = sum(t.reference_before.wall_s + t.reference_after.wall_s for t in timings)
            loading = sum(t.load_s + t.materialise_s for t in timings)
            print(f"{len(timings)} visits of {NETWORK} {name} in {wall:.1f} s")
            print(f"  measuring                        {measuring / wall:10.1%} of the wall time")
            print(f"  reference before and after       {reference / wall:10.1%}")
            print(f"  loading and materialising        {loading / wall:10.1%}")


def print_start(folder: Path) -> None:
    """Print how long it takes to the first visit's answer, the agent being there already."""
    spec = networks.get(NETWORK)
    preparation = Preparation(cached_template(spec).to_json().encode(), reference_widths(spec))
    protocol = Protocol()
    steps: list[tuple[str, float]] = []
    with ssh_server(folder) as url:
        for _ in range(2):
            steps = [("", time.perf_counter())]
            with Device(url) as device:
                device.probe()
                steps.append(("connected, probed", time.perf_counter()))
                device.prepare(preparation)
                steps.append(("template there, reference run", time.perf_counter()))
                device.wait_until_ready(StartGate(1.0))
                steps.append(("device looked at", time.perf_counter()))
                answer = device.visit(spec.max_widths, protocol.to_dict())
                steps.append(("first visit answered", time.perf_counter()))
    print("opening a device over SSH, agent cached there")
    for (_, before), (name, after) in itertools.pairwise(steps):
        print(f"  {name:32s} {after - before:10.2f} s")
    total = steps[-1][1] - steps[0][1]
    print(f"  altogether                       {total:10.2f} s")
    print(f"  to its first warm-up call, about {total - answer.measuring_s:10.2f} s")


if __name__ == "__main__":
    main()
