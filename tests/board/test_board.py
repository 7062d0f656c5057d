"""The emulated board as a device: both ways to it, whole campaigns, and what breaks them.

Latencies of an emulated processor say nothing about a real one; what is tested is that they are
measured, all and once, whatever happens to the board.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from joulemap.datasets import CostDataset
from joulemap.datasets.journal import read_journal
from joulemap.device_agents import Device, DeviceError
from joulemap.device_agents.errors import LinkLostError
from joulemap.device_agents.onboard.visit_settings import VisitSettings
from joulemap.device_agents.registry import open_transport
from joulemap.profiler import profile
from joulemap.profiler.campaign.protocol import Protocol

from .conftest import Board

# The board is twenty times as slow as this machine, and slower where that is busy.
pytestmark = [pytest.mark.board, pytest.mark.timeout(900)]

PROTOCOL = Protocol(
    visits=2,
    max_visit_s=0.3,
    max_warm_up_s=0.1,
    block_s=0.03,
    max_attempts=10,
    has_revisits=False,
    max_further_visits=0,
    start_timeout_s=1,
)
SAMPLES = 3
FAULT_AFTER_S = 1.0
FAULT_S = 4.0
WAYS = ("ssh", "adb")


def url(board: Board, way: str) -> str:
    return "ssh://board" if way == "ssh" else f"adb:127.0.0.1:{board.adb_port}"


# -- campaigns -------------------------------------------------------------------------------------


def measure(device: str | Device, out: Path) -> CostDataset:
    return profile(device, "lenet5", samples=SAMPLES, out=out, protocol=PROTOCOL, seed=5)


def made(out: Path) -> list[tuple[tuple[int, ...], int]]:
    """Return the first attempts that the journal holds, in its order; check that all are there once.

    A rejected visit is made again, as a further attempt: an emulated processor is a restless one.
    """
    visits = read_journal(out / "journal.jsonl").visits
    keys = [(visit.widths, visit.visit_index, visit.attempt) for visit in visits]
    assert len(set(keys)) == len(keys), "a visit was made twice"
    first = [key[:2] for key in keys if key[2] == 0]
    assert len(first) == SAMPLES * PROTOCOL.visits, "a visit is missing"
    return first


@pytest.fixture(scope="module")
def here(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CostDataset, Path]:
    """Return the campaign as it is on this machine."""
    out = tmp_path_factory.mktemp("here")
    return measure("local:", out), out


@pytest.mark.parametrize("way", WAYS)
def test_a_campaign_is_the_same_as_on_this_machine(
    board: Board, here: tuple[CostDataset, Path], tmp_path: Path, way: str
) -> None:
    expected, folder = here
    there = measure(url(board, way), tmp_path)
    assert made(tmp_path) == made(folder)
    assert list(there.to_pandas().columns) == list(expected.to_pandas().columns)
    assert set(there.device) == set(expected.device)
    assert there.spec == expected.spec
    assert (there.device["architecture"], there.device["kernel"]) != (
        expected.device["architecture"],
        expected.device["kernel"],
    )
    assert (there.latency_s > 0).all()


class Fault:
    """Happens to the board while it measures what it was sent first, and is mended later.

    Args:
        begin: Done when the visits are sent; nobody takes their answers before it is done.
        end: Done from then on, beside the campaign.
    """

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self._begin, self._end = begin, end
        self._thread: threading.Thread | None = None
        self._problem: BaseException | None = None

    def happen(self) -> None:
        """Begin, the first time that this is called."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run)
            time.sleep(FAULT_AFTER_S)
            self._begin()
            self._thread.start()

    def join(self) -> None:
        assert self._thread is not None, "nothing happened to the board"
        self._thread.join()
        assert self._problem is None, self._problem

    def _run(self) -> None:
        try:
            self._end()
        except BaseException as error:  # noqa: BLE001 - told in join
            self._problem = error


class FaultyDevice(Device):
    """A board to which something happens in a campaign."""

    def __init__(self, url: str, fault: Fault) -> None:
        super().__init__(url)
        self._fault = fault

    def send_ahead(
        self,
        visits: Sequence[tuple[str, Sequence[int]]],
        protocol: VisitSettings | Mapping[str, Any],
        visit_s: float,
    ) -> None:
        super().send_ahead(visits, protocol, visit_s)
        self._fault.happen()


def survives(device: str, out: Path, begin: Callable[[], None], end: Callable[[], None]) -> None:
    """Check that a campaign with a fault in it has every visit once; the command may be repeated."""
    fault = Fault(begin, end)
    for _ in range(3):
        try:
            measure(FaultyDevice(device, fault), out)
            break
        except (DeviceError, LinkLostError):
            fault.join()
    else:
        pytest.fail("the campaign does not end")
    fault.join()
    assert made(out)


@pytest.mark.parametrize("way", WAYS)
def test_a_cable_drawn_for_a_while(board: Board, tmp_path: Path, way: str) -> None:
    def end() -> None:
        time.sleep(FAULT_S)
        board.cut(False)

    survives(url(board, way), tmp_path, lambda: board.cut(True), end)


@pytest.mark.parametrize("way", WAYS)
def test_a_board_that_stands_still_for_a_while(board: Board, tmp_path: Path, way: str) -> None:
    def end() -> None:
        time.sleep(FAULT_S)
        board.ask("cont")

    survives(url(board, way), tmp_path, lambda: board.ask("stop"), end)


@pytest.mark.parametrize("way", WAYS)
def test_a_black_hole_in_the_network(board: Board, tmp_path: Path, way: str) -> None:
    # Set from within: nothing passes, nothing closes, and the board ends it by itself.
    # It begins when the answer to the command that sets it has passed.
    hole = "tc qdisc replace dev eth0 root netem loss 100%"
    script = f"sleep 1; {hole}; sleep 5; tc qdisc del dev eth0 root"

    def begin() -> None:
        transport = open_transport(url(board, way))
        transport.run(
            ["setsid", "sh", "-c", f"({script}) </dev/null >/dev/null 2>&1 &"], timeout_s=30
        )
        transport.close()

    survives(url(board, way), tmp_path, begin, lambda: time.sleep(6))


@pytest.mark.parametrize("way", WAYS)
def test_a_slow_network(board: Board, tmp_path: Path, way: str) -> None:
    transport = open_transport(url(board, way))
    queue = ["/usr/sbin/tc", "qdisc"]
    shaped = [*queue, "replace", "dev", "eth0", "root", "netem", "delay", "100ms", "20ms"]
    assert transport.run(shaped, 30).exit_code == 0
    try:
        began = time.monotonic()
        assert transport.is_alive(30)
        assert time.monotonic() - began > 0.1, "the network is not slow"
        measure(url(board, way), tmp_path)
    finally:
        transport.run([*queue, "del", "dev", "eth0", "root"], 30)
        transport.close()
    assert made(tmp_path)


@pytest.mark.parametrize("way", WAYS)
def test_a_board_whose_plug_is_pulled(board: Board, tmp_path: Path, way: str) -> None:
    survives(url(board, way), tmp_path, board.pull_the_plug, board.start)
