"""Joins a link's standard input and output to a campaign's keeper; ends when either side does."""

from __future__ import annotations

import os
import select
import socket
import sys
import time

from .. import frames
from . import campaign_folder

CHUNK = 1 << 16
# Bytes held for one direction before reading from the other side pauses.
MAX_HELD = 4 << 20
REFUSED = 4
# Until a keeper that ends has put everything back.
REACH_S = 10.0


def attach(agent: str, token: str) -> int:
    """Return the exit code after the link or the keeper ended.

    Args:
        agent: The agent's archive, from which a keeper is started if none lives.
        token: The campaign's.
    """
    try:
        connection = _reach(agent, token)
    except campaign_folder.FolderError as error:
        return _refuse(str(error), is_transient=False)
    if connection is None:
        return _refuse("the campaign's keeper on the device does not listen", is_transient=True)
    relay(0, 1, connection)
    return 0


def _reach(agent: str, token: str) -> socket.socket | None:
    """Return a connection to the keeper, started if need be; an ending one is waited for."""
    deadline = time.monotonic() + REACH_S
    while time.monotonic() < deadline:
        campaign_folder.enter(agent, token)
        connection = campaign_folder.connect()
        if connection is not None:
            return connection
        campaign_folder.start_keeper(campaign_folder.keeper_command(agent, token))
        connection = campaign_folder.connect()
        if connection is not None:
            return connection
        time.sleep(0.1)
    return None


def _refuse(why: str, *, is_transient: bool) -> int:
    """Say why, as a frame for the host and in words for whoever tries it by hand."""
    refused = {"message": why, "is_transient": is_transient}
    os.write(1, frames.encode({"id": None, "refused": refused}))
    print(why, file=sys.stderr)
    return REFUSED


def relay(stdin: int, stdout: int, connection: socket.socket) -> None:
    """Pass bytes on in both directions until one side ends."""
    keeper = connection.fileno()
    for fd in (stdin, stdout, keeper):
        os.set_blocking(fd, False)
    held = {keeper: bytearray(), stdout: bytearray()}
    targets = {stdin: keeper, keeper: stdout}
    while True:
        read = [source for source, target in targets.items() if len(held[target]) < MAX_HELD]
        write = [target for target, data in held.items() if data]
        readable, writable, _ = select.select(read, write, [])
        try:
            for source in readable:
                data = os.read(source, CHUNK)
                if not data:
                    _rest(stdout, held[stdout])
                    return
                held[targets[source]] += data
            for target in writable:
                written = os.write(target, held[target])
                del held[target][:written]
        except BlockingIOError:
            continue
        except OSError:
            return


def _rest(stdout: int, data: bytearray) -> None:
    """Write what the keeper said before it ended, unless the link takes nothing any more."""
    while data and select.select([], [stdout], [], 5.0)[1]:
        try:
            del data[: os.write(stdout, data)]
        except OSError:
            return
