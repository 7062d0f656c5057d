"""Whole campaigns on this machine: real agent, real journal."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import re
import shutil
import signal
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulemap import InputError, JoulemapError
from joulemap.datasets import CostDataset, Visit
from joulemap.datasets.journal import read_journal
from joulemap.datasets.store import DEVICE_LINK
from joulemap.datasets.verification import UnverifiedWarning
from joulemap.device_agents import StableDeviceError, TransientDeviceError, registry
from joulemap.device_agents import device as device_module
from joulemap.device_agents.host.agent_archive import agent_archive
from joulemap.device_agents.onboard.probe_answer import ProbeAnswer
from joulemap.device_agents.registry import RuntimeEntry
from joulemap.profiler import Protocol, networks, profile, profile_layers, sample

from ...calm_judgement import CALM

FAST = Protocol(
    visits=2,
    max_attempts=10,
    max_further_visits=0,
    has_revisits=False,
    max_visit_s=0.02,
    block_s=0.003,
    min_run_s=2e-4,
    reference_s=0.002,
    start_timeout_s=0.01,
)


class Recorder:
    """Keeps what a campaign tells."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.visits: list[Visit] = []
        self.noise: list[float | None] = []
        self.totals: list[tuple[int, int]] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def started(self, total: int, done: int, visit_s: float) -> None:
        self.totals.append((total, done))

    def visited(self, visit: Visit, done: int, noise: float | None) -> None:
        self.visits.append(visit)
        self.noise.append(noise)


def run(out: Path, samples: int | None = 5, **changes: Any) -> tuple[CostDataset, Recorder]:
    recorder = Recorder()
    settings: dict[str, Any] = {
        "protocol": FAST,
        "judgement": CALM,
        "observer": recorder,
        **changes,
    }
    return profile("local:", "lenet5", samples=samples, out=out, **settings), recorder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("campaign") / "run"
    run(folder)
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_a_campaign_measures_every_variant_in_every_round(finished: Path) -> None:
    content = read_journal(finished / "journal.jsonl")
    spec = networks.get("lenet5")
    variants = sample(spec, 5)
    for index in range(2):
        visited = [visit.widths for visit in content.visits if visit.visit_index == index]
        assert sorted(visited) == sorted(variants)
    assert [visit.sequence for visit in content.visits] == list(range(10))
    dataset = CostDataset.load(finished)
    assert sorted(map(tuple, dataset.widths)) == sorted(variants)
    assert (dataset.latency_s > 0).all()
    assert np.isnan(dataset.energy_j).all()
    assert dataset.spec == spec
    floor = dataset.noise_floor()
    assert floor is not None
    assert floor.num_pairs == 5


def test_what_is_to_come_is_told_before_anything_is_waited_for(tmp_path: Path) -> None:
    """The bar, whose clock tells what is left, begins after the wait for an idle machine."""
    events: list[str] = []

    class Told(Recorder):
        def message(self, text: str) -> None:
            events.append(text)

        def started(self, total: int, done: int, visit_s: float) -> None:
            events.append("started")

    protocol = dataclasses.replace(FAST, max_further_visits=2)
    run(tmp_path / "run", 3, protocol=protocol, observer=Told())
    (plan,) = (each for each in events if " to go" in each)
    assert re.match(rf"{3 * FAST.visits} visits; about 0:0\d to go, then at most 6 further", plan)
    (wait,) = (each for each in events if "waiting until the device is idle" in each)
    assert events.index(plan) < events.index(wait) < events.index("started")


def test_the_same_call_on_a_finished_campaign_does_nothing(copy: Path) -> None:
    before = (copy / "journal.jsonl").read_bytes()
    dataset, recorder = run(copy)
    assert recorder.totals == [(10, 10)]
    assert recorder.visits == []
    assert (copy / "journal.jsonl").read_bytes() == before
    assert len(dataset) == 5


def test_more_samples_extend_and_keep_what_is_there(copy: Path) -> None:
    before = (copy / "journal.jsonl").read_bytes()
    dataset, recorder = run(copy, samples=7)
    assert recorder.totals == [(14, 10)]
    assert len(recorder.visits) == 4
    assert (copy / "journal.jsonl").read_bytes().startswith(before)
    assert len(dataset) == 7
    assert recorder.noise[-1] is not None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed: 0 there, 1 here"),
        ({"sampling": "uniform"}, "sampling: sobol there, uniform here"),
        ({"batch": 2}, "batch: 1 there, 2 here"),
        ({"threads": 2}, "threads: 1 there, 2 here"),
        ({"protocol": dataclasses.replace(FAST, visits=3)}, "protocol visits: 2 there, 3 here"),
        ({"samples": 4}, "more than asked for"),
    ],
)
def test_any_other_difference_is_refused_and_named(
    copy: Path, changes: dict[str, Any], named: str
) -> None:
    before = {item.name: item.read_bytes() for item in copy.iterdir()}
    with pytest.raises(InputError, match=named):
        run(copy, **changes)
    assert {item.name: item.read_bytes() for item in copy.iterdir()} == before


def test_another_device_is_refused_and_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = device_module.Device.probe
    monkeypatch.setattr(
        device_module.Device,
        "probe",
        lambda self: ProbeAnswer.from_dict(
            {**probe(self).details, "device_id": "another", "former_ids": []}
        ),
    )
    with pytest.raises(InputError, match=r"device: .* there, .*another.* here"):
        run(copy)


def test_a_latin_hypercube_cannot_be_extended(tmp_path: Path) -> None:
    run(tmp_path / "lhs", samples=3, sampling="lhs")
    with pytest.raises(InputError, match="lhs sample cannot be extended"):
        run(tmp_path / "lhs", samples=5, sampling="lhs")


def test_other_listed_widths_are_refused(tmp_path: Path) -> None:
    first = [(1, 2, 3, 4), (6, 16, 120, 84)]
    run(tmp_path, samples=None, widths=first)
    with pytest.raises(InputError, match="1 of its 2 variants are not among those"):
        run(tmp_path, samples=None, widths=[first[0], (2, 2, 3, 4)])
    dataset, _ = run(tmp_path, samples=None, widths=[*first, (2, 2, 3, 4)])
    assert len(dataset) == 3


def test_an_active_campaign_continues_extends_and_ends(tmp_path: Path) -> None:
    class Interrupting(Recorder):
        def visited(self, visit: Visit, done: int, noise: float | None) -> None:
            if done == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, samples=4, sampling="active", observer=Interrupting())
    _, continued = run(tmp_path, samples=4, sampling="active")
    assert continued.totals == [(8, 3)]
    dataset, extended = run(tmp_path, samples=6, sampling="active")
    assert extended.totals == [(12, 8)]
    chosen = sample(networks.get("lenet5"), 6, sampling="active")
    assert sorted(map(tuple, dataset.widths)) == sorted(chosen)
    before = (tmp_path / "journal.jsonl").read_bytes()
    run(tmp_path, samples=6, sampling="active")
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_a_torn_line_is_reported_and_its_visit_made_again(copy: Path) -> None:
    path = copy / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    # The dataset beside it tells that the line had been written whole.
    with pytest.warns(UnverifiedWarning, match="lost lines at its end"):
        dataset, recorder = run(copy)
    assert any("unfinished line" in text for text in recorder.messages)
    assert len(recorder.visits) == 1
    assert len(read_journal(path).visits) == 10
    assert len(dataset) == 5


def test_an_interrupted_campaign_leaves_a_dataset_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting(Recorder):
        def visited(self, visit: Visit, done: int, noise: float | None) -> None:
            super().visited(visit, done, noise)
            if len(self.visits) == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", observer=Interrupting())
    assert (tmp_path / "run" / "measurements.parquet").exists()
    assert len(CostDataset.load(tmp_path / "run")) == 4
    dataset, recorder = run(tmp_path / "run")
    assert recorder.totals == [(10, 4)]
    assert len(dataset) == 5


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Python's own handler, which the background of a shell does not have, and a press."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: os.kill(os.getpid(), signal.SIGINT)
    is_back = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)
    assert is_back


def test_ctrl_c_in_a_users_program_comes_when_the_campaign_is_left_in_order(
    tmp_path: Path, ctrl_c: Callable[[], None]
) -> None:
    class Pressing(Recorder):
        def visited(self, visit: Visit, done: int, noise: float | None) -> None:
            super().visited(visit, done, noise)
            if len(self.visits) == 3:
                ctrl_c()

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", observer=Pressing())
    assert len(CostDataset.load(tmp_path / "run" / "measurements.parquet")) == 3
    _, recorder = run(tmp_path / "run")
    assert recorder.totals == [(10, 3)]


def test_ctrl_c_while_the_device_works_is_no_failed_visit(
    tmp_path: Path, with_fault: Callable[[str], None], ctrl_c: Callable[[], None]
) -> None:
    with_fault("time.sleep(600)")

    class Pressing(Recorder):
        def visited(self, visit: Visit, done: int, noise: float | None) -> None:
            super().visited(visit, done, noise)
            if len(self.visits) == 1:  # The next one does not end.
                threading.Timer(0.2, ctrl_c).start()

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", runtime="faulty", observer=Pressing())
    visits = read_journal(tmp_path / "run" / "journal.jsonl").visits
    assert visits
    assert not [visit.error for visit in visits if visit.error]


FAULTY = '''
"""The real runtime, with one fault every fourth load."""
import os, sys, time
from .onnx_runtime import Runtime as Real, version

class Runtime(Real):
    loads = 0
    def load(self, model, inputs):
        call = super().load(model, inputs)
        Runtime.loads += 1
        if Runtime.loads == 1 or Runtime.loads % 4:
            return call
        def fault():
            FAULT
        return fault
'''


@pytest.fixture
def with_fault(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a runtime that fails so into the agent that travels to the device."""

    def install(fault: str) -> None:
        name, content = agent_archive()
        buffer = io.BytesIO(content)
        code = FAULTY.replace("FAULT", fault, 1)
        with zipfile.ZipFile(buffer, "a") as archive:
            start = archive.read("__main__.py").decode()
            archive.writestr("joulemap_agent/runtimes/faulty.py", code)
        rebuilt = io.BytesIO()
        with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(rebuilt, "w") as new:
            for item in old.namelist():
                if item != "__main__.py":
                    new.writestr(item, old.read(item))
            new.writestr("__main__.py", start.replace("{'onnx", "{'faulty': 'faulty', 'onnx"))
        name = f"faulty-{hashlib.sha256(rebuilt.getvalue()).hexdigest()[:16]}.pyz"
        monkeypatch.setattr(device_module, "agent_archive", lambda: (name, rebuilt.getvalue()))
        entry = RuntimeEntry("faulty", "comes with the tests")
        monkeypatch.setattr(registry, "RUNTIMES", {**registry.RUNTIMES, "faulty": entry})

    return install


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("os._exit(11)", "ended with code 11"),
        ("os.kill(os.getpid(), 9)", "killed by signal 9"),
        ("time.sleep(60)", "no answer within"),
        ("os.write(3, b'garbage' * 10)", "garbage"),
        ("raise MemoryError", "out of memory"),
    ],
)
def test_a_fault_ends_its_visit_but_never_the_campaign(
    tmp_path: Path,
    with_fault: Callable[[str], None],
    fault: str,
    error: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "sleep" in fault:
        # A healthy visit on a machine that pauses for so long fails with the same words.
        monkeypatch.setattr(device_module, "VISIT_GRACE_S", 1.0)
    with_fault(fault)
    dataset, recorder = run(tmp_path / "run", runtime="faulty")
    failed = [visit.error for visit in recorder.visits if visit.error]
    assert failed
    assert all(error in text for text in failed)
    assert len(dataset) == 5
    content = read_journal(tmp_path / "run" / "journal.jsonl")
    assert sum(visit.error is None for visit in content.visits) == 10
    assert [visit.error for visit in content.visits if visit.error] == failed


def test_what_a_library_prints_is_not_taken_for_a_frame(
    tmp_path: Path, with_fault: Callable[[str], None]
) -> None:
    with_fault("print('hello'); os.write(1, b'world'); call()")
    dataset, recorder = run(tmp_path / "run", runtime="faulty", samples=3)
    assert not [visit for visit in recorder.visits if visit.error]
    assert len(dataset) == 3


def test_a_variant_that_never_runs_is_left_out_and_said(
    tmp_path: Path, with_fault: Callable[[str], None]
) -> None:
    with_fault("raise ValueError('unsupported operator')")
    dataset, recorder = run(tmp_path / "run", runtime="faulty")
    failed = [visit for visit in recorder.visits if visit.error]
    assert all("stable" in (visit.error or "") for visit in failed)
    # A stable failure is not tried again; the other round still measures the variant.
    assert len(recorder.visits) == 10
    assert 1 <= len(dataset) <= 5


@pytest.mark.parametrize(
    ("fault", "error", "advice"),
    [
        ("os._exit(11)", TransientDeviceError, "fewer threads .* the same command continues"),
        ("raise ValueError('no such op')", StableDeviceError, "no such op; it will fail again"),
    ],
)
def test_a_device_that_only_fails_ends_the_campaign_after_five_visits(
    tmp_path: Path,
    with_fault: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    error: type[JoulemapError],
    advice: str,
) -> None:
    with_fault(fault)
    name, content = getattr(device_module, "agent_archive")()  # noqa: B009 - replaced above
    # Every load but the first, which is the reference's.
    broken = content.replace(b"% 4", b"% 1")
    monkeypatch.setattr(device_module, "agent_archive", lambda: ("broken-" + name, broken))
    with pytest.raises(error, match=f"5 visits failed one after another.*{advice}") as raised:
        run(tmp_path / "run", runtime="faulty")
    assert len(str(raised.value)) < 400
    assert len(read_journal(tmp_path / "run" / "journal.jsonl").visits) == 5


def test_a_device_that_has_worked_may_fail_for_longer(
    tmp_path: Path, with_fault: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_fault("raise ValueError('no such op')")
    name, content = getattr(device_module, "agent_archive")()  # noqa: B009 - replaced above
    # The reference and the first visit succeed.
    condition = b"Runtime.loads == 1 or Runtime.loads % 4"
    late = content.replace(condition, b"Runtime.loads < 4".ljust(len(condition)))
    assert late != content
    monkeypatch.setattr(device_module, "agent_archive", lambda: ("late-" + name, late))
    with pytest.raises(StableDeviceError, match="20 visits failed one after another"):
        run(tmp_path / "run", samples=20, runtime="faulty")


@pytest.mark.parametrize("threads", [2 * len(os.sched_getaffinity(0)) + 1, 999])
def test_more_threads_than_two_a_processor_are_refused(tmp_path: Path, threads: int) -> None:
    has = re.escape(f"local: has {len(os.sched_getaffinity(0))} processor")
    with pytest.raises(InputError, match=f"{has}.* threads is {threads}"):
        run(tmp_path / "run", threads=threads)
    assert not (tmp_path / "run" / "journal.jsonl").exists()
    with pytest.raises(InputError, match=has):
        profile_layers("local:", "lenet5", samples=1, threads=threads)


def test_mistakes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"samples": 0}, "at least 1"),
        ({"samples": 10**9}, "only 967680 width vectors"),
        ({"sampling": "magic"}, "known: active, aligned"),
        ({"batch": 0}, "batch is 0"),
        ({"precision": "int8"}, "known: fp32"),
        ({"runtime": "magic"}, "known: onnxruntime"),
    ]
    for changes, message in cases:
        with pytest.raises(InputError, match=message):
            run(tmp_path / "run", **changes)
        assert not (tmp_path / "run" / "journal.jsonl").exists()
    with pytest.raises(InputError, match="known"):
        profile("local:", "nonet", samples=1, out=tmp_path / "x")


def test_a_campaign_that_failed_while_it_began_begins_in_the_same_folder(tmp_path: Path) -> None:
    with pytest.raises(JoulemapError, match="nvml"):
        run(tmp_path / "run", meter="nvml")
    assert (tmp_path / "run" / DEVICE_LINK).exists()
    assert not (tmp_path / "run" / "journal.jsonl").exists()
    assert len(run(tmp_path / "run")) > 0


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        run(tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="cannot write"):
        run(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
