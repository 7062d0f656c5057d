"""What a device may say that no keeper says: an error within its time, and nothing run or written here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from joulemap.device_agents.device import Device, Preparation
from joulemap.device_agents.errors import DeviceError, LinkLostError, StableDeviceError
from joulemap.device_agents.host.answers import preparation_digest
from joulemap.device_agents.host.keeper_client import KeeperClient, LinkLimits
from joulemap.device_agents.interfaces import VisitRequest
from joulemap.device_agents.onboard.preparation_answer import (
    Affinity,
    Exclusivity,
    FrequencyHold,
    MetersInUse,
)
from joulemap.device_agents.testing import LoopbackProcess, LoopbackTransport
from joulemap.profiler.command_line.device_text import print_probe

LIMITS = LinkLimits(
    first_wait_s=0.01,
    longest_wait_s=0.05,
    give_up_s=20.0,
    connect_s=20.0,
    beat_s=0.2,
    silence_s=1.0,
    deliver_s=0.2,
    idle_limit_s=5.0,
)
# What every hostile device begins with: it greets as a keeper does, then shows what it is.
PREAMBLE = """
import json, os, struct, sys, time
def read():
    prefix = sys.stdin.buffer.read(12)
    if len(prefix) < 12: sys.exit(0)
    _, h, p = struct.unpack(">4sII", prefix)
    header = json.loads(sys.stdin.buffer.read(h)); sys.stdin.buffer.read(p)
    return header
def send(header, payload=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    os.write(1, struct.pack(">4sII", b"JMF1", len(text), len(payload)) + text + payload)
def greet():
    send({"id": read()["id"], "result": {"prepared": None}})
def answer(request, **other):
    send({"id": request["id"], "key": request["key"], "result": {"x": request["key"]}, **other})
"""
VISIT = "\nrequest = read()\n"
ANSWER = "send({'id': request['id'], 'result': {'x': 1}}); time.sleep(30)"
GOOD = "\nwhile True:\n    answer(read())\n"


class HostileTransport(LoopbackTransport):
    """Links to one program after another; the last again and again."""

    def __init__(self, programs: Sequence[str]) -> None:
        super().__init__()
        self.programs = list(programs)

    def attach(self) -> list[str]:
        code = self.programs.pop(0) if len(self.programs) > 1 else self.programs[0]
        return [sys.executable, "-c", PREAMBLE + code]


@pytest.fixture
def clients() -> Iterator[list[KeeperClient]]:
    opened: list[KeeperClient] = []
    yield opened
    for client in opened:
        client._kill()


def client_of(clients: list[KeeperClient], *programs: str) -> KeeperClient:
    transport = HostileTransport(programs)
    client = KeeperClient(
        transport, transport.attach, agent_visits=50, limits=LIMITS, on_message=lambda text: None
    )
    clients.append(client)
    return client


def collect(client: KeeperClient, *keys: str) -> list[str]:
    client.send([VisitRequest(key, {"widths": [1]}, 0.5) for key in keys])
    return [client.collect(key)["x"] for key in keys]


BAD = {
    "garbage": "os.write(1, b'Segmentation fault' * 9)",
    "huge header": "os.write(1, struct.pack('>4sII', b'JMF1', 2**31, 0))",
    "huge payload": "os.write(1, struct.pack('>4sII', b'JMF1', 2, 2**31))",
    "header without end": "os.write(1, struct.pack('>4sII', b'JMF1', 8000000, 0) + b'[' * 100)",
    "invalid JSON": "send(b'{\"id\": 1,')",
    "deep JSON": "send(b'[' * 100000 + b']' * 100000)",
    "no object": "send([1, 2])",
    "payload": "send({'id': request['id'], 'key': request['key'], 'result': {}}, b'payload')",
    "wrong id": "send({'id': 10**9, 'result': {}})",
    "no id": "send({})",
    "unknown key": "send({'id': request['id'], 'key': '../../etc/passwd', 'result': {}})",
    "key of another type": "send({'id': 1, 'key': ['visit'], 'result': {}})",
    "no result": "send({'id': request['id'], 'key': request['key']})",
    "result of another type": "send({'id': 1, 'key': request['key'], 'result': 'text'})",
    "more that never comes": "answer(request, more=10**9)",
    "half a frame": "os.write(1, b'JMF1\\0\\0')",
    "end": "sys.exit(0)",
    "death": "os.kill(os.getpid(), 9)",
    "silence": "pass",
}


@pytest.mark.parametrize("bad", BAD.values(), ids=list(BAD))
def test_a_bad_answer_breaks_the_link_and_the_next_link_is_as_good_as_ever(
    bad: str, clients: list[KeeperClient]
) -> None:
    end = "\ntime.sleep(30)"
    client = client_of(clients, f"greet(){VISIT}{bad}{end}", f"greet(){GOOD}")
    assert collect(client, "one", "two") == ["one", "two"]
    assert client.num_outstanding == 0


@pytest.mark.parametrize("bad", ["garbage", "unknown key", "end"])
def test_a_device_that_never_makes_sense_is_given_up(bad: str, clients: list[KeeperClient]) -> None:
    client = client_of(clients, f"greet(){VISIT}{BAD[bad]}\ntime.sleep(30)")
    client._limits = replace(LIMITS, give_up_s=0.6)
    with pytest.raises(LinkLostError, match=r"restart the device.*the same command continues"):
        collect(client, "one")


def test_an_answer_that_comes_twice_is_not_taken_twice(clients: list[KeeperClient]) -> None:
    twice = f"greet(){VISIT}answer(request); answer(request)\n{GOOD}"
    client = client_of(clients, twice, f"greet(){GOOD}")
    assert collect(client, "one") == ["one"]
    assert collect(client, "two") == ["two"]


def test_beats_without_end_are_no_answer(clients: list[KeeperClient]) -> None:
    endless = "\nwhile True:\n    send({'beat': True}); time.sleep(0.05)"
    client = client_of(clients, f"greet(){VISIT}{endless}", f"greet(){GOOD}")
    assert collect(client, "one") == ["one"]


def test_a_device_that_greets_with_garbage_is_given_up_soon(clients: list[KeeperClient]) -> None:
    for program in ("os.write(1, b'Last login: yesterday')", "sys.exit(3)", "send({'id': 1})"):
        client = client_of(clients, program + "\ntime.sleep(30)")
        client._limits = replace(LIMITS, give_up_s=0.3)
        with pytest.raises((LinkLostError, DeviceError)):
            client.ask("probe", timeout_s=0.5)


def test_a_refusal_is_said_without_what_a_terminal_would_obey(clients: list[KeeperClient]) -> None:
    refusal = "send({'id': None, 'refused': {'message': '\\x1b[2Jno room\\x07' + 'x' * 9999}})"
    client = client_of(clients, refusal + "\ntime.sleep(30)")
    with pytest.raises(StableDeviceError, match="no room") as caught:
        client.ask("probe", timeout_s=0.5)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2500


def test_errors_are_words_of_bounded_length(clients: list[KeeperClient]) -> None:
    failing = """
while True:
    request = read()
    send({'id': request['id'], 'key': request['key'],
          'error': {'message': '\\x1b]0;title\\x07' + 'x' * 99999, 'is_transient': 'maybe'}})
"""
    client = client_of(clients, "greet()" + failing)
    client.send([VisitRequest("one", {}, 0.5)])
    with pytest.raises(DeviceError) as caught:
        client.collect("one")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2500


def test_a_link_that_takes_nothing_does_not_block_the_host(clients: list[KeeperClient]) -> None:
    client = client_of(clients, "greet()\ntime.sleep(30)", f"greet(){GOOD}")
    many = [VisitRequest(f"{index}", {"padding": "x" * 200_000}, 0.5) for index in range(3)]
    for visit in many:
        client.send([visit])
    assert [client.collect(visit.key)["x"] for visit in many] == ["0", "1", "2"]


def test_a_device_that_forgot_the_preparation_is_told_which_meters_were_chosen(
    clients: list[KeeperClient],
) -> None:
    meter = {"name": "hwmon", "channel": "in", "state": {"mode": "slow"}}
    meters = {"chosen": [{**meter, "kind": "sampler"}], "why": "it is the best"}
    first = f"send({{'id': read()['id'], 'result': {{'meters': {meters}}}}})"
    again = """
request = read()
send({'id': request['id'], 'result': {}})
told = {name: request[name] for name in ('digest', 'meters_before')}
request = read()
send({'id': request['id'], 'key': request['key'], 'result': told})
read()
"""
    client = client_of(clients, f"greet()\n{first}", f"greet(){again}")
    request = {"meter": "auto", "meters_before": None}
    client.prepare(request, b"template", 1.0)
    client.send([VisitRequest("one", {"widths": [1]}, 0.5)])
    told = client.collect("one")
    assert told["meters_before"] == [meter]
    # It is the same preparation: a device that has it still is not prepared again.
    assert told["digest"] == preparation_digest(request, b"template")


def test_nothing_of_another_device_that_answers_at_the_address_is_taken(
    clients: list[KeeperClient],
) -> None:
    def greeting(name: str) -> str:
        state = f"{{'prepared': None, 'identity': {{'machine id': '{name}'}}}}"
        return f"send({{'id': read()['id'], 'result': {state}}})\n"

    wrong = "closed = read()\nsend({'id': closed['id'], 'key': 'one', 'result': {'x': 'wrong'}})"
    client = client_of(
        clients,
        f"{greeting('first')}{VISIT}sys.exit(0)",
        f"{greeting('second')}{wrong}",
        f"{greeting('first')}{GOOD}",
    )
    with pytest.raises(LinkLostError, match=r"another device answers.*its machine id differs"):
        collect(client, "one")
    assert client.num_outstanding == 1
    assert client.collect("one")["x"] == "one"


@pytest.mark.parametrize("identity", ["5", "'text'", "[]", "{}", "{'machine id': []}", "{1: {}}"])
def test_a_device_that_says_nonsense_of_itself_may_be_the_same_one(
    clients: list[KeeperClient], identity: str
) -> None:
    greeting = f"send({{'id': read()['id'], 'result': {{'identity': {identity}}}}})"
    client = client_of(clients, f"{greeting}{VISIT}sys.exit(0)", f"{greeting}\n{GOOD}")
    assert collect(client, "one") == ["one"]


class HostileDevice(HostileTransport):
    """A device on which every program is the hostile one."""

    def start(self, command: Sequence[str]) -> LoopbackProcess:
        return super().start(self.attach())


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Device]:
    """Return a function (operation's answers, as Python) -> a device that gives them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def make(**answers: str) -> Device:
        texts = ", ".join(f"{name!r}: {text}" for name, text in answers.items())
        program = (
            f"greet()\nanswers = {{{texts}}}\nwhile True:\n    request = read()\n"
            "    send({'id': request['id'], 'result': answers.get(request['op'], {})})"
        )
        return Device("loopback:", transport=HostileDevice([program]), limits=LIMITS)

    return make


@pytest.mark.parametrize("probe", ["{}", "{'device_id': None}", "{'device_id': ['a']}"])
def test_a_device_that_does_not_say_what_it_is_is_refused(
    hostile: Callable[..., Device], probe: str
) -> None:
    with hostile(probe=probe) as device, pytest.raises(StableDeviceError, match="no device_id"):
        device.probe()


@pytest.mark.parametrize("junk", ["5", "'text'", "['a']", "[[1]]", "[{}]", "{'a': 1}", "True"])
def test_a_preparation_that_makes_no_sense_says_nothing_of_cpus_and_clocks(
    hostile: Callable[..., Device], junk: str
) -> None:
    names = ("cpus", "affinity", "frequency_lock", "meters", "device_lock")
    answer = f"dict.fromkeys({names}, {junk})"
    with hostile(prepare=answer) as device:
        device.prepare(Preparation(b"", (1,)))
        assert all(isinstance(cpu, int) for cpu in device.cpus)
        assert (device.affinity, device.device_lock) == (Affinity(), Exclusivity())
        assert (device.frequency_lock, device.meters) == (FrequencyHold(), MetersInUse())


def test_times_of_layers_that_make_no_sense_are_refused(hostile: Callable[..., Device]) -> None:
    with hostile(layers="{'nodes': 5}") as device:
        device.prepare(Preparation(b"", (1,)))
        with pytest.raises(StableDeviceError, match="the device timed no nodes"):
            device.layer_times((1,), 3)


@pytest.mark.parametrize("meters", ["{'chosen': 5}", "{'chosen': ['rapl']}"])
def test_a_description_of_meters_that_makes_no_sense_is_refused(
    hostile: Callable[..., Device], meters: str
) -> None:
    with hostile(prepare=f"{{'meters': {meters}}}", meters="{'available': [5, {}]}") as device:
        assert device.find_meters().to_dict() == {"available": [{}], "missing": []}
        with pytest.raises(StableDeviceError, match="description of its meters makes no sense"):
            device.prepare(Preparation(b"", (1,)))


def test_why_nothing_keeps_campaigns_apart_is_said_without_what_a_terminal_would_obey(
    hostile: Callable[..., Device],
) -> None:
    said: list[str] = []
    with hostile(prepare="{'device_lock': {'reason': '\\x1b[2J' + 'x' * 9999}}") as device:
        device.on_message = said.append
        device.prepare(Preparation(b"", (1,)))
    (warning,) = (text for text in said if "not kept apart" in text)
    assert warning.isprintable()
    assert len(warning) < 700


@pytest.mark.parametrize("number", ["float('nan')", "float('inf')"])
def test_what_is_no_number_breaks_the_link(clients: list[KeeperClient], number: str) -> None:
    bad = f"send({{'id': 2, 'key': 'one', 'result': {{'x': {number}}}}})\ntime.sleep(30)"
    client = client_of(clients, f"greet(){VISIT}{bad}", f"greet(){GOOD}")
    assert collect(client, "one") == ["one"]


@pytest.mark.parametrize("busy", ["-1", "1e9", "'long'", "None", "True", "[]"])
def test_a_device_that_says_to_be_busy_for_ever_is_not_waited_for(
    clients: list[KeeperClient], busy: str
) -> None:
    greeting = f"send({{'id': read()['id'], 'result': {{'prepared': None, 'busy_s': {busy}}}}})"
    client = client_of(clients, f"{greeting}\ntime.sleep(30)", f"greet(){VISIT}{ANSWER}")
    assert client.ask("probe", timeout_s=0.1) == {"x": 1}


def test_probe_prints_whatever_a_device_says_of_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for junk in (5, "text", [5], [[5]], [{"cpus": 5}], {"onnxruntime": 5}, True, None):
        names = ("memory_bytes", "max_frequency_hz", "clusters", "thermal_zones", "control")
        more = ("runtimes", "execution_providers", "gpus", "android", "os_release", "clocks")
        print_probe("loopback:", dict.fromkeys((*names, *more), junk), {"available": junk}, "none")
    assert "Device loopback:" in capsys.readouterr().out
