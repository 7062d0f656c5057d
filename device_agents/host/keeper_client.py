"""The host's end of the conversation with a keeper: over links that break, nothing is lost.

::

    send(visits) --- frames ---> keeper    the device works through them; the link is silent
    collect(key) <-- answers ---           in one go, when it has
    acknowledge(key)                       with the next frames, once the host has them safe

Whatever breaks a link (an end, silence, garbage), the way back is the same: a new link with
back-off, a new attachment, the preparation if the device forgot it, and every visit that is
still outstanding under its old key. The keeper measures a key once and repeats its answer.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from joulemap import interruption
from joulemap.showable_text import showable, showable_answer

from ..errors import (
    DeviceError,
    DeviceInUseError,
    LinkLostError,
    StableDeviceError,
    TransientDeviceError,
)
from ..interfaces import Process, Transport, VisitRequest
from ..onboard import frames
from ..onboard.energy.meter import remembered
from . import same_device
from .answers import MAX_MESSAGE, preparation_digest, result_of

T = TypeVar("T")
# The keeper answers at once, but for an agent that is just being ended.
CLOSE_S = 15.0
CLOSE_TRIES = 3
_SAFE = "What was measured is safe, here and on the device; the same command continues"
MAX_BUSY_S = 86400.0
# Of requests that are sent in one go.
MAX_SENT_BYTES = 256 * 1024


@dataclass(frozen=True)
class LinkLimits:
    """How long what may take.

    Args:
        first_wait_s: Before the first try to reach the device again; doubled each time up to
        longest_wait_s: ... this,
        give_up_s: ... until so long nothing has come back.
        connect_s: Limit of one try.
        beat_s: How often the keeper says that it works when nothing else is to be said.
        silence_s: Without a word for so long the link counts as broken.
        deliver_s: How long finished visits may wait on the device while it measures others.
        idle_limit_s: When a keeper ends that has nothing to do and hears nothing.
    """

    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    give_up_s: float = 300.0
    connect_s: float = 30.0
    beat_s: float = 30.0
    silence_s: float = 75.0
    deliver_s: float = 30.0
    idle_limit_s: float = 600.0


class _BrokenLink(Exception):
    """The link failed, or what came over it makes no sense."""


class _DeviceTaken(_BrokenLink):
    """Another campaign took the device while this one's host was away."""


class KeeperClient:
    """Asks a keeper, over as many links as it takes.

    Args:
        transport: How the device is reached.
        attach: The command, run on the device, that joins a link to the keeper. Called anew for
            each link, since what it needs may have to be stored on the device again.
        agent_visits: Visits after which a fresh agent takes over.
        limits: How long what may take.
        on_message: Is told what the user should know.
    """

    def __init__(
        self,
        transport: Transport,
        attach: Callable[[], Sequence[str]],
        *,
        agent_visits: int,
        limits: LinkLimits,
        on_message: Callable[[str], None],
    ) -> None:
        self._transport, self._attach, self._limits = transport, attach, limits
        self._agent_visits, self._on_message = agent_visits, on_message
        self._process: Process | None = None
        self._next_id = 0
        self._preparation: tuple[dict[str, Any], bytes, float] | None = None
        # Sent and not yet answered, in order; answered and not yet collected.
        self._outstanding: dict[str, VisitRequest] = {}
        self._answers: dict[str, dict[str, Any]] = {}
        self._safe: list[str] = []
        # Since when, and how often in a row, links broke without an answer in between.
        self._failing_since: float | None = None
        self._num_failures = 0
        self._was_attached = self._is_prepared = self._has_given_up = False
        self._warning: str | None = None
        # What the device says that tells it from others.
        self._identity: object = None
        # How long the device may go on with what it did when this side attached.
        self._busy_s = 0.0

    @property
    def is_usable(self) -> bool:
        """Whether it can be asked more: always, it reaches the device again by itself."""
        return True

    @property
    def num_outstanding(self) -> int:
        """Visits that the device still owes an answer for."""
        return len(self._outstanding)

    def is_known(self, key: str) -> bool:
        """Return whether a visit was sent and not collected yet."""
        return key in self._outstanding or key in self._answers

    def ask(
        self,
        operation: str,
        request: Mapping[str, Any] | None = None,
        *,
        payload: bytes = b"",
        timeout_s: float,
    ) -> dict[str, Any]:
        """Return the agent's answer to a request that may be repeated without harm.

        Raises:
            DeviceError: The agent says that it cannot.
            LinkLostError: The device was not reached for too long.
        """
        header = {**(request or {}), "limit_s": timeout_s}
        limit_s = timeout_s + self._limits.silence_s
        answer = self._through(lambda: self._exchange(operation, header, payload, limit_s))
        self._has_progressed()
        return result_of(operation, answer)

    def prepare(
        self, request: Mapping[str, Any], payload: bytes, timeout_s: float
    ) -> dict[str, Any]:
        """Return the agent's answer to `prepare`, which is repeated whenever the device forgot it.

        Raises:
            DeviceError: The agent says that it cannot.
            LinkLostError: The device was not reached for too long.
        """
        digest = preparation_digest(request, payload)
        header = {**request, "digest": digest, "limit_s": timeout_s}
        self._preparation = None
        limit_s = timeout_s + self._limits.silence_s
        answer = self._through(lambda: self._exchange("prepare", header, payload, limit_s))
        self._has_progressed()
        result = result_of("prepare", answer)
        # A keeper that forgot it reads the same meters again, whatever is best by then.
        before = remembered(result.get("meters"))
        self._preparation = ({**header, "meters_before": before}, payload, limit_s)
        return result

    def send(self, visits: Sequence[VisitRequest]) -> None:
        """Queue visits on the device, as many as go at a time; those that were sent are left out.

        Raises:
            LinkLostError: The device was not reached for too long.
        """
        new: list[VisitRequest] = []
        size = 0
        for visit in visits:
            size += len(json.dumps(dict(visit.request)))
            if new and size > MAX_SENT_BYTES:
                break
            if not self.is_known(visit.key):
                new.append(visit)
        # Attached first: what is outstanding then is sent as part of attaching.
        self._through(lambda: None)
        self._outstanding.update((visit.key, visit) for visit in new)
        try:
            if self._process is not None:
                self._submit(new)
        except _BrokenLink as error:
            self._break(error)

    def collect(self, key: str) -> dict[str, Any]:
        """Return the answer to a visit that was sent.

        Raises:
            DeviceError: The visit failed on the device.
            LinkLostError: The device was not reached for too long.
        """
        while key not in self._answers:
            self._through(lambda: self._receive_visits(key))
        return result_of("visit", self._answers.pop(key))

    def acknowledge(self, key: str) -> None:
        """Let the device forget an answer that is safe here; it is told with what is sent next."""
        self._safe.append(key)

    def end_agent(self) -> None:
        """Leave that to the keeper: it ends an agent when another preparation comes."""

    def close(self, *, keep: bool = False) -> None:
        """End keeper and agent if they can be reached.

        Args:
            keep: Whether answers that were not acknowledged stay on the device.
        """
        if self._has_given_up or not self._was_attached:
            self._kill()
            return
        # Who asked to stop waits for one try.
        num_tries = 1 if interruption.is_asked() else CLOSE_TRIES
        for tries_left in range(num_tries - 1, -1, -1):
            try:
                if self._process is None:
                    self._greet(self._transport.start(self._attach()))
                self._acknowledge()
                self._exchange("close", {"keep": keep}, b"", CLOSE_S)
                break
            except (_BrokenLink, DeviceError) as error:
                self._kill()
                # What has taken over the device's address stays another one.
                is_last = self._has_given_up or not tries_left
                if not self._has_given_up:
                    with contextlib.suppress(DeviceError):
                        self._transport.reconnect(CLOSE_S)
                if is_last:
                    self._on_message(
                        f"joulemap on the device could not be told to end ({error}); it ends by "
                        f"itself within {self._limits.idle_limit_s / 60:.0f} minutes"
                    )
                    break
        self._kill()

    # -- one link ----------------------------------------------------------------------------------

    def _exchange(
        self, operation: str, header: Mapping[str, Any], payload: bytes, limit_s: float
    ) -> dict[str, Any]:
        """Return the answer to one request; visits' answers that come before it are kept."""
        number = self._write(operation, header, payload)
        deadline = time.monotonic() + limit_s + self._busy_s
        while True:
            answer = self._read(deadline)
            if "key" in answer:
                self._keep_visit(answer)
            elif answer.get("id") == number:
                self._busy_s = 0.0
                return answer
            else:
                raise _BrokenLink(f"an answer to request {answer.get('id')!r:.50}, not {number}")

    def _receive_visits(self, key: str) -> None:
        """Take the answers that the device hands over in one go."""
        if key in self._answers:
            return  # It came before the link broke, or while a new one was joined.
        visit = self._outstanding[key]
        # The agent may die once, be prepared again and take as long again.
        longest = 3 * visit.limit_s + 2 * (self._preparation[2] if self._preparation else 0.0)
        deadline = time.monotonic() + longest + self._limits.deliver_s + self._limits.silence_s
        more = True
        while more and self._outstanding:
            answer = self._read(deadline)
            if "key" not in answer:
                raise _BrokenLink(f"an answer to request {answer.get('id')!r:.50} instead of one")
            self._keep_visit(answer)
            more = bool(answer.get("more"))

    def _keep_visit(self, answer: dict[str, Any]) -> None:
        key = answer["key"]
        if not isinstance(key, str) or key not in self._outstanding:
            raise _BrokenLink(f"an answer for {str(key)!r:.100}, which was not asked for")
        if not isinstance(answer.get("result", answer.get("error")), dict):
            raise _BrokenLink("an answer without a result")
        del self._outstanding[key]
        self._answers[key] = answer
        self._has_progressed()
        self._warn(answer.get("warning"))

    def _submit(self, visits: Sequence[VisitRequest]) -> None:
        self._acknowledge()
        data = b""
        for visit in visits:
            self._next_id += 1
            header = {**visit.request, "key": visit.key, "limit_s": visit.limit_s}
            data += frames.encode({**header, "id": self._next_id, "op": "visit"})
        self._write_bytes(data)

    def _acknowledge(self) -> None:
        if self._safe:
            self._write("acknowledge", {"keys": self._safe}, b"")
            self._safe = []

    def _write(self, operation: str, header: Mapping[str, Any], payload: bytes) -> int:
        self._next_id += 1
        self._write_bytes(frames.encode({**header, "id": self._next_id, "op": operation}, payload))
        return self._next_id

    def _write_bytes(self, data: bytes) -> None:
        if self._process is None:
            raise _BrokenLink("it is not attached")
        try:
            self._process.write(data, self._limits.silence_s)
        except DeviceError as error:
            raise _BrokenLink(str(error)) from error

    def _read(self, deadline: float, silence_s: float | None = None) -> dict[str, Any]:
        """Return the next frame's header that is no beat; None for the link's limit of silence."""
        longest_s = self._limits.silence_s if silence_s is None else silence_s
        process = self._process
        if process is None:
            raise _BrokenLink("it is not attached")
        while True:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise _BrokenLink("the device works without end")
            wait_s = min(longest_s, remaining_s)
            try:
                prefix = process.read(frames.PREFIX.size, wait_s)
                header_length, payload_length = frames.decode_prefix(prefix)
                header = frames.decode_header(process.read(header_length, wait_s))
                if payload_length:
                    raise frames.FrameError("a payload that nobody asked for")
            except DeviceError as error:
                raise _BrokenLink(str(error)) from error
            except frames.FrameError as error:
                raise _BrokenLink(f"the device sent garbage ({str(error)[:200]})") from error
            if "beat" not in header:
                return header

    # -- from link to link -------------------------------------------------------------------------

    def _through(self, exchange: Callable[[], T]) -> T:
        """Return what an exchange returns over the first link that holds for it."""
        while True:
            try:
                if self._process is None:
                    self._join()
                return exchange()
            except _BrokenLink as error:
                self._break(error)

    def _break(self, error: _BrokenLink) -> None:
        """Let go of a link; wait, and reach the device again, or give up."""
        self._kill()
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        limits = self._limits
        give_up_s = limits.give_up_s if self._was_attached else min(limits.give_up_s, 5.0)
        if now - self._failing_since > give_up_s:
            self._has_given_up = True
            if isinstance(error, _DeviceTaken):
                raise LinkLostError(f"{error}. {_SAFE}")
            raise LinkLostError(self._farewell(error, now - self._failing_since))
        wait_s = min(limits.longest_wait_s, limits.first_wait_s * 2**self._num_failures)
        self._num_failures += 1
        if isinstance(error, _DeviceTaken):
            self._on_message(f"{error}; next try in {wait_s:.0f} s")
        elif self._was_attached:
            self._on_message(
                f"the link to the device broke ({showable(error, 200)}); the device goes on "
                f"measuring, next try in {wait_s:.0f} s"
            )
        interruption.sleep(wait_s)
        try:
            self._transport.reconnect(limits.connect_s)
        except TransientDeviceError:
            return  # The next exchange fails and comes back here.
        except StableDeviceError as stable:
            raise LinkLostError(f"{stable}. {_SAFE}") from stable

    def _farewell(self, error: _BrokenLink, elapsed_s: float) -> str:
        cause = showable(error, 600)
        if not self._was_attached and not self._transport.is_alive(self._limits.connect_s):
            # It was never reached; the cause says what to do.
            return cause
        if self._transport.is_alive(self._limits.connect_s):
            what = (
                "the device answers, but joulemap's agent on it does not: restart the device, or "
                "end its process 'agent-....pyz keep'"
            )
        else:
            what = "look after its power and network"
        return (
            f"nothing has come back from the device for {elapsed_s:.0f} s "
            f"({showable(error, 300)}); {what}. {_SAFE}"
        )

    def _join(self) -> None:
        """Attach to the keeper and bring it to where this side is.

        Raises:
            DeviceError: It cannot be done, and never could.
            LinkLostError: It could be done before and cannot be done any more.
        """
        try:
            self._greet(self._transport.start(self._attach()))
            if self._preparation is not None and not self._is_prepared:
                header, payload, limit_s = self._preparation
                result_of("prepare", self._exchange("prepare", header, payload, limit_s))
            self._submit(list(self._outstanding.values()))
        except DeviceInUseError as error:
            raise _DeviceTaken(str(error)) from error
        except TransientDeviceError as error:
            raise _BrokenLink(str(error)) from error
        except StableDeviceError as error:
            self._kill()
            if self._was_attached:
                raise LinkLostError(f"{error}. {_SAFE}") from error
            raise

    def _greet(self, process: Process) -> None:
        limits = self._limits
        self._process = process
        hello = {
            "agent_visits": self._agent_visits,
            "idle_limit_s": limits.idle_limit_s,
            "beat_s": limits.beat_s,
            "deliver_s": limits.deliver_s,
        }
        number = self._write("hello", hello, b"")
        # Until a keeper has started it does not even say that it works.
        answer = self._read(time.monotonic() + limits.connect_s, limits.connect_s)
        if isinstance(refused := answer.get("refused"), Mapping):
            why = showable(refused.get("message"), MAX_MESSAGE)
            raise (TransientDeviceError if refused.get("is_transient") else StableDeviceError)(why)
        state = showable_answer(answer.get("result"))
        if answer.get("id") != number or not isinstance(state, Mapping):
            raise _BrokenLink("the device's answer to the first request makes no sense")
        if parts := same_device.differences(self._identity, state.get("identity")):
            self._leave()
            raise StableDeviceError(same_device.refusal(parts))
        self._identity = self._identity or state.get("identity")
        self._was_attached = True
        # A visit for a host before this one may have to end first; `close` ends that too.
        busy_s = state.get("busy_s")
        self._busy_s = 0.0
        if isinstance(busy_s, (int, float)) and 0 < busy_s <= MAX_BUSY_S:
            self._busy_s = float(busy_s)
        digest = self._preparation[0]["digest"] if self._preparation else None
        self._is_prepared = digest is not None and state.get("prepared") == digest
        self._warn(state.get("warning"))

    def _leave(self) -> None:
        """Let a device that is not this campaign's end what attaching has started there."""
        self._has_given_up = True
        with contextlib.suppress(_BrokenLink):
            self._write("close", {"keep": True}, b"")
            deadline = time.monotonic() + CLOSE_S
            while True:
                self._read(deadline)  # To the end of the link, and nothing of it counts.

    def _has_progressed(self) -> None:
        self._has_given_up = False
        self._failing_since, self._num_failures = None, 0

    def _warn(self, warning: object) -> None:
        if isinstance(warning, str) and warning != self._warning:
            self._on_message("warning: " + showable(warning, 300))
            self._warning = warning

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
        self._process = None
