"""Reaches a simulated board: the real agent on this machine, with the board's files as its /sys.

The agent, the runtime and the clock are real; the board is simulated in what it has for meters,
thermal zones and frequencies. It works when the agent's processes use CPUs, so its joules are those
of a known model and not of this machine.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..device import Device
from ..errors import StableDeviceError
from ..interfaces import Completed
from ..onboard.probe_answer import ProbeAnswer
from ..transports.local import LocalProcess, LocalTransport
from . import board_child
from .board_options import BoardOptions
from .board_server import BoardServer


class BoardTransport(LocalTransport):
    """Runs programs on this machine with a simulated board's files in the place of /sys.

    Args:
        options: What the board has and does.

    Raises:
        DeviceError: A program or package is missing, or the board could not be started.
    """

    is_simulated = True

    def __init__(self, options: BoardOptions | None = None) -> None:
        super().__init__()
        unshare = shutil.which("unshare")
        if unshare is None:
            raise StableDeviceError(
                "a simulated board needs unshare: apt-get install -y --no-install-recommends "
                "util-linux"
            )
        self._unshare = unshare
        self.server = BoardServer(options)

    def run(self, command: Sequence[str], timeout_s: float, max_bytes: int = 1 << 20) -> Completed:
        """Return what a short program printed and how it ended; its work is not the board's."""
        return super().run(self._inside(command), timeout_s, max_bytes)

    def start(self, command: Sequence[str]) -> LocalProcess:
        """Start a program whose work is the board's from now on."""
        process = super().start(self._inside(command))
        try:
            self.server.watch(process.pid)
        except OSError as error:
            said = process.stderr_tail().splitlines()
            process.kill()
            reason = said[-1][:300] if said else error.strerror
            raise StableDeviceError(
                f"the simulated board cannot watch {command[0]}: {reason}"
            ) from error
        return process

    def close(self) -> None:
        """End the board."""
        self.server.close()

    def _inside(self, command: Sequence[str]) -> list[str]:
        # Without root's rights a user namespace gives the right to mount, inside it alone.
        own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        return [
            *(self._unshare, *own, "--mount", "--propagation", "private", "--"),
            *(self.python(), "-I", str(Path(board_child.__file__))),
            *(str(self.server.folder), *command),
        ]


class BoardDevice(Device):
    """A simulated board: its fingerprint says so.

    Args:
        url: Its URL.
        options: What it has and does.
        agent_visits: Visits after which a fresh agent takes over.

    Raises:
        DeviceError: A program or package is missing, or the board could not be started.
    """

    def __init__(
        self, url: str, options: BoardOptions | None = None, *, agent_visits: int = 50
    ) -> None:
        transport = BoardTransport(options)
        super().__init__(url, transport=transport, agent_visits=agent_visits)
        self.server = transport.server

    def probe(self) -> ProbeAnswer:
        """Return what the machine says of itself with the board's identity and options."""
        found = super().probe().to_dict()
        options = dict(self.server.options.texts())
        device_id, *former = (
            "sim-" + hashlib.sha256(repr((each, sorted(options.items()))).encode()).hexdigest()[:12]
            for each in (found.get("device_id"), *found.get("former_ids", ()))
        )
        found |= {
            "device_id": device_id,
            "former_ids": former,
            "board": "simulated board",
            "simulated_board": options,
            "is_virtual": True,
        }
        return ProbeAnswer.from_dict(found)
