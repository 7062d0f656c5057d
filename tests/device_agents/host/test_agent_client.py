"""The host's end against real child processes that misbehave at the byte level."""

from __future__ import annotations

import sys
import time

import pytest

from joulemap.device_agents.errors import StableDeviceError, TransientDeviceError
from joulemap.device_agents.host.agent_client import AgentClient
from joulemap.device_agents.interfaces import Session, VisitRequest
from joulemap.device_agents.transports.local import LocalProcess

# What every stand-in agent starts with: read one request, know how to answer.
PREAMBLE = """
import json, os, struct, sys, time
def read():
    _, h, p = struct.unpack(">4sII", sys.stdin.buffer.read(12))
    header = json.loads(sys.stdin.buffer.read(h)); sys.stdin.buffer.read(p)
    return header
def send(header, payload=b"", magic=b"JMF1"):
    text = json.dumps(header).encode()
    sys.stdout.buffer.write(struct.pack(">4sII", magic, len(text), len(payload)) + text + payload)
    sys.stdout.buffer.flush()
request = read()
"""


def client_of(code: str) -> AgentClient:
    return AgentClient(LocalProcess([sys.executable, "-c", PREAMBLE + code]))


# Far longer than an answer takes, and the program's start on a machine that pauses.
LIMIT_S = 30.0


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("os.write(1, b'Segmentation fault\\n' * 3); time.sleep(30)", "garbage"),
        ("send({'id': 1, 'result': {}}, magic=b'JMF2'); time.sleep(30)", "garbage"),
        ("send({'id': 99, 'result': {}}); time.sleep(30)", "answer to request 99"),
        ("send([1, 2]); time.sleep(30)", "no JSON object"),
        ("send({'id': 1}); time.sleep(30)", "no result"),
        ("send({'id': 1, 'result': 7}); time.sleep(30)", "no result"),
        ("os.write(1, struct.pack('>4sII', b'JMF1', 2**31, 2**31)); time.sleep(30)", "exceeds"),
        ("os.write(1, b'JMF1\\0\\0'); os._exit(0)", "ended with code 0"),
        ("os._exit(7)", "ended with code 7"),
        ("print('no such device', file=sys.stderr); sys.exit(1)", "no such device"),
        ("os.kill(os.getpid(), 9)", "killed by signal 9"),
        ("time.sleep(30)", "no answer within 1 s"),
        ("os.close(1); time.sleep(30)", "closed its output"),
    ],
)
def test_a_misbehaving_agent_is_a_transient_error_and_broken_from_then_on(
    code: str, message: str
) -> None:
    client = client_of(code)
    began = time.monotonic()
    with pytest.raises(TransientDeviceError, match=message) as first:
        client.ask("visit", timeout_s=1 if message == "no answer within 1 s" else LIMIT_S)
    assert time.monotonic() - began < 10
    assert not client.is_usable
    with pytest.raises(TransientDeviceError, match="visit failed") as second:
        client.ask("visit", timeout_s=1)
    assert str(second.value) == str(first.value)
    client.close()


def test_an_error_answer_leaves_the_agent_usable() -> None:
    client = client_of(
        "send({'id': 1, 'error': {'message': 'no such operator', 'is_transient': False}})\n"
        "request = read(); send({'id': 2, 'error': {'message': 'busy', 'is_transient': True}})\n"
        "request = read(); send({'id': 3, 'result': {'x': request['x']}})\n"
        "read()"
    )
    with pytest.raises(StableDeviceError, match="no such operator"):
        client.ask("visit", timeout_s=LIMIT_S)
    with pytest.raises(TransientDeviceError, match="busy"):
        client.ask("visit", timeout_s=LIMIT_S)
    assert client.is_usable
    assert client.ask("visit", {"x": 5}, timeout_s=LIMIT_S) == {"x": 5}
    client.close()


def test_visits_that_were_sent_are_made_in_the_order_in_which_they_are_collected() -> None:
    client = client_of(
        "send({'id': 1, 'result': {'widths': request['widths']}})\n"
        "request = read(); send({'id': 2, 'error': {'message': 'too wide'}})\n"
        "request = read(); send({'id': 3, 'result': {'widths': request['widths']}})\n"
        "read()"
    )
    session: Session = client
    session.send([VisitRequest(str(i), {"widths": [i]}, LIMIT_S) for i in range(3)])
    assert session.num_outstanding == 3
    assert session.collect("2") == {"widths": [2]}
    with pytest.raises(StableDeviceError, match="too wide"):
        session.collect("0")
    assert not session.is_known("0")
    assert session.collect("1") == {"widths": [1]}
    assert not session.num_outstanding
    session.acknowledge("1")
    session.close(keep=True)
    assert not session.is_usable


def test_an_agent_that_does_not_read_cannot_block_the_host() -> None:
    process = LocalProcess([sys.executable, "-c", "import time; time.sleep(30)"])
    client = AgentClient(process)
    with pytest.raises(TransientDeviceError, match="no answer within"):
        client.ask("prepare", payload=b"x" * 10_000_000, timeout_s=0.5)
