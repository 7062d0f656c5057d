"""The real agent in a real child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from joulemap import InputError
from joulemap.datasets import Timing
from joulemap.device_agents.device import Device, Preparation, StartGate
from joulemap.device_agents.errors import StableDeviceError
from joulemap.device_agents.host.agent_archive import _built, agent_archive
from joulemap.device_agents.onboard.preparation_answer import Affinity, FrequencyHold
from joulemap.profiler import Protocol, networks
from joulemap.profiler.campaign.protocol import reference_widths
from joulemap.profiler.templates.export import cached_template

from .processes import wait_for_cpu_time, wait_for_states

PROTOCOL = Protocol(max_visit_s=0.1, block_s=0.01, reference_s=0.005).to_dict()


@pytest.fixture(scope="module")
def preparation() -> Preparation:
    spec = networks.get("lenet5")
    return Preparation(cached_template(spec).to_json().encode(), reference_widths(spec))


@pytest.fixture
def device(preparation: Preparation) -> Iterator[Device]:
    with Device("local:", agent_visits=3) as device:
        device.prepare(preparation)
        yield device


def test_the_fingerprint_names_the_machine_and_its_runtimes() -> None:
    with Device("local:") as device:
        first = device.probe()
    with Device("local:") as device:
        second = device.probe()
    assert first.device_id == second.device_id
    assert first.num_cpus is not None
    assert first.num_cpus >= 1
    assert first.runtimes["onnxruntime"]


def test_visits_can_be_sent_ahead_to_a_device_without_a_link(device: Device) -> None:
    device.send_ahead([("a", [2, 4, 30, 21]), ("b", [1, 1, 1, 1])], PROTOCOL, 0.2)
    for key in ("b", "a", "c", "a"):  # Of which the last one needs a fresh agent.
        Timing.from_dict(device.visit([1, 1, 1, 1], PROTOCOL, key).timing())
        device.acknowledge(key)


def test_a_visit_measures_blocks_between_references(device: Device) -> None:
    # A machine may pause for seconds, but not at each visit.
    limit_s = 5 * PROTOCOL["max_visit_s"] + 1
    for _ in range(3):
        timing = Timing.from_dict(device.visit([6, 16, 120, 84], PROTOCOL).timing())
        _assert_blocks_lie_between_references(timing)
        if timing.measuring_s < limit_s:
            break
    assert timing.measuring_s < limit_s


def _assert_blocks_lie_between_references(timing: Timing) -> None:
    assert len(timing.blocks) >= 3
    assert len(timing.warm_up_s) >= 2
    for block in (*timing.blocks, timing.reference_before, timing.reference_after):
        total = sum(block.latencies_s) * block.calls_per_run
        assert 0 < total <= block.wall_s
    # Calls of a few microseconds are timed several at once.
    assert timing.blocks[0].calls_per_run > 1
    assert timing.measuring_s >= sum(block.wall_s for block in timing.blocks)


def test_the_agent_is_bound_to_as_many_cpus_as_threads(device: Device) -> None:
    assert len(device.cpus) == 1
    pid = device.visit([2, 4, 30, 21], PROTOCOL).pid
    assert os.sched_getaffinity(pid) == set(device.cpus)


def test_a_fresh_agent_takes_over_after_some_visits(device: Device) -> None:
    pids = [device.visit([2, 4, 30, 21], PROTOCOL).pid for _ in range(7)]
    assert len(set(pids)) == 3
    assert pids[0] == pids[2] != pids[3] == pids[5] != pids[6]


def test_a_killed_agent_costs_one_visit(device: Device) -> None:
    pid = device.visit([2, 4, 30, 21], PROTOCOL).pid
    os.kill(pid, signal.SIGKILL)
    wait_for_states([pid], "ZX")
    assert device.visit([2, 4, 30, 21], PROTOCOL).pid != pid


def test_widths_that_do_not_fit_are_a_stable_error_and_the_agent_stays(device: Device) -> None:
    device.agent_visits = 99
    pid = device.visit([2, 4, 30, 21], PROTOCOL).pid
    for widths in ([2, 4, 30], [7, 4, 30, 21], [0, 4, 30, 21]):
        with pytest.raises(StableDeviceError, match="width"):
            device.visit(widths, PROTOCOL)
    assert device.visit([2, 4, 30, 21], PROTOCOL).pid == pid


def test_an_unknown_runtime_or_address_is_the_users_mistake(preparation: Preparation) -> None:
    with Device("local:") as device, pytest.raises(InputError, match="known: onnxruntime"):
        device.prepare(Preparation(preparation.template, (1, 1, 1, 1), runtime="tensorrt"))
    for url in ("nowhere", "ftp:x", "local:x", ""):
        with pytest.raises(InputError, match="local:"):
            Device(url)


def test_a_damaged_template_is_a_stable_error() -> None:
    with Device("local:") as device, pytest.raises(StableDeviceError, match="template"):
        device.prepare(Preparation(b'{"schema_version": 1}', (1, 1, 1, 1)))


def test_the_agent_ends_when_its_host_is_gone(preparation: Preparation, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from joulemap.device_agents.device import Device, Preparation\n"
        "device = Device('local:')\n"
        "device.prepare(Preparation(open(sys.argv[1], 'rb').read(), (1, 4, 30, 21)))\n"
        f"protocol = {PROTOCOL!r}\n"
        "print(device.visit([1, 1, 1, 1], protocol).pid, flush=True)\n"
        "device.visit([1, 1, 1, 1], {**protocol, 'max_visit_s': 60})\n"
    )
    template = tmp_path / "template.json"
    template.write_bytes(preparation.template)
    host = subprocess.Popen(
        [sys.executable, "-P", "-c", code, str(template)], stdout=subprocess.PIPE, text=True
    )
    assert host.stdout is not None
    pid = int(host.stdout.readline())
    # It computes again: the long visit has begun, after its references of milliseconds.
    wait_for_cpu_time(pid, 0.3)
    host.kill()
    host.wait()
    host.stdout.close()
    wait_for_states([pid], "ZX")


def test_the_archive_is_reproducible_and_needs_nothing_of_joulemap(tmp_path: Path) -> None:
    name, content = agent_archive()
    _built.cache_clear()
    assert agent_archive() == (name, content)
    path = tmp_path / name
    path.write_bytes(content)
    code = (
        "import sys, runpy, io\n"
        f"sys.path.insert(0, {str(path)!r})\n"
        "import joulemap_agent.onboard.agent\n"
        "loaded = [m for m in sys.modules if m.split('.')[0] in ('joulemap', 'numpy', 'onnx')]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True)


def test_the_start_gate_looks_at_the_real_machine(device: Device) -> None:
    waited_s: list[float] = []
    # A machine may pause for seconds, but not at each try.
    while len(waited_s) < 3 and (not waited_s or waited_s[-1] >= 5):
        answer = device.wait_until_ready(StartGate(1.0, timeout_s=0, interval_s=0.2))
        assert answer.is_ready
        assert answer.reason is None
        assert answer.busy_share is not None
        assert answer.waited_s is not None
        assert 0 <= answer.busy_share <= 1
        waited_s.append(answer.waited_s)
        assert waited_s[-1] > 0.1
    assert min(waited_s) < 5
    with Device("local:") as fresh:
        assert fresh.wait_until_ready(StartGate(1.0, interval_s=0.1)).is_ready
    for mistake in ({"max_busy_share": 1.5}, {"interval_s": 0}, {"max_temperature_c": -1}):
        with pytest.raises(InputError, match=next(iter(mistake))):
            StartGate(**mistake)


def test_conditions_are_in_the_visit_and_an_unasked_lock_changes_nothing(device: Device) -> None:
    timing = Timing.from_dict(device.visit([2, 4, 30, 21], PROTOCOL).timing())
    assert {"load_1min", "temperature_c", "is_throttled", "memory_pressure_share"} <= set(
        timing.machine
    )
    assert device.affinity == Affinity(is_bound=True)
    assert device.frequency_lock == FrequencyHold(is_locked=False)


def test_more_threads_than_cpus_are_not_bound_and_that_is_said(preparation: Preparation) -> None:
    threads = len(os.sched_getaffinity(0)) + 1
    with Device("local:") as device:
        device.prepare(replace(preparation, threads=threads))
        assert not device.affinity.is_bound
        assert f"{threads} threads share" in str(device.affinity.reason)
        assert len(device.cpus) == threads - 1
