"""The host's end of the conversation with an agent."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from joulemap import interruption

from ..errors import StableDeviceError, TransientDeviceError
from ..interfaces import Process, VisitRequest
from ..onboard import frames
from .answers import result_of


class AgentClient:
    """Asks one agent; after the first failure of the conversation it is broken for good.

    An answer that says "error" leaves the agent usable. A time limit, garbage or a dead process
    does not: what the agent does then is unknown, so it is killed and every later call repeats
    the first cause.

    Args:
        process: The started agent.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._next_id = 0
        self._broken: str | None = None
        # Sent and not yet collected: each is made when it is collected.
        self._outstanding: dict[str, VisitRequest] = {}

    @property
    def is_usable(self) -> bool:
        """Whether the conversation is intact and the agent runs."""
        return self._broken is None and self._process.is_alive()

    def ask(
        self,
        operation: str,
        request: Mapping[str, Any] | None = None,
        *,
        payload: bytes = b"",
        timeout_s: float,
    ) -> dict[str, Any]:
        """Return the agent's answer.

        Args:
            operation: `probe`, `prepare`, `ready`, `visit` or `close`.
            request: Its arguments, JSON.
            payload: Bytes that go with it.
            timeout_s: Limit for the whole exchange.

        Raises:
            TransientDeviceError: The agent died, hung or sent garbage.
            StableDeviceError: The agent says that it cannot.
        """
        if self._broken is not None:
            raise TransientDeviceError(self._broken)
        self._next_id += 1
        try:
            answer = self._exchange(operation, dict(request or {}), payload, timeout_s)
        except TransientDeviceError as error:
            self._break(f"{operation} failed: {error}")
            raise TransientDeviceError(f"{operation} failed: {error}") from error
        except interruption.Interrupted:
            # It does not listen before it has answered.
            self._break("the agent has been closed")
            raise
        except frames.FrameError as error:
            message = f"{operation} failed: the agent sent garbage ({str(error)[:200]})"
            self._break(message)
            raise TransientDeviceError(message) from error
        if "error" not in answer and not isinstance(answer.get("result"), dict):
            self._break(f"{operation} failed: the agent's answer has no result")
        return result_of(operation, answer)

    @property
    def num_outstanding(self) -> int:
        """Visits that were sent and not made yet."""
        return len(self._outstanding)

    def is_known(self, key: str) -> bool:
        """Return whether a visit was sent and not collected yet."""
        return key in self._outstanding

    def prepare(
        self, request: Mapping[str, Any], payload: bytes, timeout_s: float
    ) -> dict[str, Any]:
        """Return the agent's answer to `prepare`.

        Raises:
            DeviceError: As `ask`.
        """
        return self.ask("prepare", request, payload=payload, timeout_s=timeout_s)

    def send(self, visits: Sequence[VisitRequest]) -> None:
        """Remember visits until they are collected: nothing can go on without this side."""
        self._outstanding.update((visit.key, visit) for visit in visits)

    def collect(self, key: str) -> dict[str, Any]:
        """Let the agent make a visit that was sent, and return its answer.

        Raises:
            DeviceError: As `ask`.
        """
        visit = self._outstanding.pop(key)
        return self.ask("visit", visit.request, timeout_s=visit.limit_s)

    def acknowledge(self, key: str) -> None:
        """Do nothing: an agent keeps no answers."""

    def end_agent(self) -> None:
        """End the agent: politely when it listens, in any case within seconds."""
        self.close()

    def close(self, *, keep: bool = False) -> None:
        """End the agent: politely when it listens, in any case within seconds.

        Args:
            keep: Without effect: an agent keeps no answers.
        """
        if self.is_usable:
            with contextlib.suppress(TransientDeviceError, StableDeviceError):
                self.ask("close", timeout_s=3)
        self._break("the agent has been closed")

    def _exchange(
        self, operation: str, request: dict[str, Any], payload: bytes, timeout_s: float
    ) -> dict[str, Any]:
        header = {**request, "id": self._next_id, "op": operation}
        self._process.write(frames.encode(header, payload), timeout_s)
        prefix = self._process.read(frames.PREFIX.size, timeout_s)
        header_length, payload_length = frames.decode_prefix(prefix)
        answer = frames.decode_header(self._process.read(header_length, timeout_s))
        self._process.read(payload_length, timeout_s)
        if answer.get("id") != self._next_id:
            raise frames.FrameError(f"answer to request {answer.get('id')!r}, not {self._next_id}")
        return answer

    def _break(self, cause: str) -> None:
        if self._broken is None:
            self._broken = cause
        self._process.kill()
