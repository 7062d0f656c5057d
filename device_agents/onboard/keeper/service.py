"""The keeper: stays on the device when the link goes, and keeps the agent measuring.

::

    host ==== link ==== attach ---- socket ---- keeper ---- agent
                                                  |
                                                spool

One process per campaign, with one agent at a time as its child. Requests are frames as the agent
takes them, with these besides:

===========  =====================================================================================
operation    what it does
===========  =====================================================================================
hello        sets agent_visits, idle_limit_s, beat_s, deliver_s; says what is held already
prepare      with a `digest`: the same one again is answered from memory
visit        with a `key` and `limit_s`: answered from the spool, or queued once
acknowledge  `keys` that the host has safe: forgotten here
close        ends keeper and agent; `keep` leaves the spool for the next keeper
===========  =====================================================================================

While the agent measures, the link is silent: answers are handed over when the queue is empty, or
between two visits if `deliver_s` have passed since the last time. After `beat_s` of silence a frame
says that work goes on. Without a host the queue is worked off; after `idle_limit_s` without a host
or work the keeper ends, and with it the agent, which restores what it changed. The spool stays.
The device is this campaign's from the first preparation on (see `device_lock`), until the keeper
ends, or has no work and has heard nothing from a host for a minute.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
import traceback
from collections import deque
from pathlib import Path
from typing import Any

from .. import frames, private_folder
from ..agent_child import DYING_S, AgentChild, Stream
from ..energy.meter import remembered
from ..machine.identity import identity
from . import campaign_folder
from .device_lock import DeviceLock, refusal, taken_by
from .job import Job
from .spool import Spool

VERSION = 1
MAX_DEATHS = 2
MAX_QUEUE = 10_000
MAX_KEY = 200
MAX_LOG = 256 * 1024
# How often a child is looked at that may have died without closing its socket.
TICK_S = 5.0
# When the device is left to others by who has neither a host nor work.
REST_S = 60.0


class Keeper:
    """Works through a queue of requests with one agent, in the working directory.

    Args:
        folder: The working directory's path.
        agent_command: How the agent is started.

    Raises:
        OSError: The folder cannot be written.
    """

    def __init__(self, folder: Path, agent_command: list[str]) -> None:
        self._folder = folder
        self.spool = Spool(Path("spool"))
        self._command = agent_command
        self._listener = campaign_folder.listen()
        self._lock = DeviceLock()
        self._identity = identity()
        self._host: Stream | None = None
        self._child: AgentChild | None = None
        self._queue: deque[Job] = deque()
        self._running: Job | None = None
        self._deadline = 0.0
        self._num_sent = 0
        self._preparation: Job | None = None
        self._prepared: dict[str, Any] | None = None
        # Keys that this host waits for, with the id of its request.
        self._owed: dict[str, Any] = {}
        # Answers that the disk did not take.
        self._unspooled: dict[str, dict[str, Any]] = {}
        self._warning: str | None = None
        self._agent_visits, self._idle_limit_s = 50, 600.0
        self._beat_s, self._deliver_s = 30.0, 10.0
        self._heard = self._worked = self._said = self._delivered = time.monotonic()
        self._is_over = self._is_removed = False
        # What the host is told when everything has been put back.
        self._farewell: dict[str, Any] | None = None

    def run(self) -> None:
        """Work until told to close or long alone; leave the folder only for who will need it."""
        try:
            while not self._is_over:
                self._turn()
        finally:
            if self._child is not None:
                self._child.close()
            self._lock.release()
            # There may be room again.
            for key, answer in self._unspooled.items():
                with contextlib.suppress(OSError):
                    self.spool.append(key, answer)
            self._is_removed = self._is_removed or not len(self.spool)
            self._listener.close()
            self.spool.close()
            Path("socket").unlink(missing_ok=True)
            if self._is_removed:
                campaign_folder.remove(self._folder)
            if self._host is not None:
                with contextlib.suppress(OSError):
                    if self._farewell is not None:
                        self._host.send(self._farewell)
                    self._host.flush()
                self._host.close()

    def _turn(self) -> None:
        streams = [stream for stream in (self._host, self._child and self._child.stream) if stream]
        read: list[Any] = [self._listener, *streams]
        if self._child is not None and self._child.errors is not None:
            read.append(self._child.errors)
        write = [stream for stream in streams if stream.has_unsent]
        ready, writable, _ = select.select(read, write, [], self._wait_s())
        if self._child is not None and self._child.errors in ready:
            self.note(self._child.read_errors())
        if self._child is not None and self._child.stream in (*ready, *writable):
            self._serve_child(self._child, is_ready=self._child.stream in ready)
        if self._host is not None and self._host in (*ready, *writable):
            self._serve_host(self._host, is_ready=self._host in ready)
        if self._listener in ready:
            self._accept()
        self._work()

    def _wait_s(self) -> float:
        now = time.monotonic()
        times = [now + TICK_S]
        if self._running is not None:
            times.append(self._deadline)
        if not self._has_work:
            times.append(self._idle_since + self._idle_limit_s)
        elif self._host is not None:
            times.append(self._said + self._beat_s)
        return max(0.0, min(times) - now)

    @property
    def _has_work(self) -> bool:
        # What is only in memory has to be handed over before more is added to it.
        is_stuck = bool(self._unspooled) and self._host is None
        return self._running is not None or (bool(self._queue) and not is_stuck)

    @property
    def _idle_since(self) -> float:
        # A host that waits for the end of long work says nothing meanwhile.
        return max(self._heard, self._worked)

    # -- the host ----------------------------------------------------------------------------------

    def _accept(self) -> None:
        """Take the newest connection for the host: an older one is a link that broke."""
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        if not campaign_folder.is_own(connection):
            connection.close()
            return
        self._lose_host()
        self._host = Stream(connection)
        self._heard = time.monotonic()

    def _lose_host(self) -> None:
        if self._host is not None:
            self._host.close()
        self._host = None
        self._owed = {}
        self._queue = deque(job for job in self._queue if job.key is not None)

    def _serve_host(self, host: Stream, *, is_ready: bool) -> None:
        try:
            host.flush()
            received = host.receive() if is_ready else []
            for request, payload in received:
                self._heard = time.monotonic()
                self._take(host, request, payload)
            host.flush()
        except (OSError, frames.StreamClosed):
            self._lose_host()
        except (frames.FrameError, KeyError, TypeError, ValueError) as error:
            self.note(f"the host's request makes no sense: {error!r}\n".encode())
            self._lose_host()

    def _take(self, host: Stream, request: dict[str, Any], payload: bytes) -> None:
        operation, number = request.get("op"), request.get("id")
        if operation == "hello":
            self._agent_visits = int(request["agent_visits"])
            self._idle_limit_s = float(request["idle_limit_s"])
            self._beat_s = float(request["beat_s"])
            self._deliver_s = float(request["deliver_s"])
            self._say({"id": number, "result": self._state()})
        elif operation == "visit":
            self._take_visit(number, request)
        elif operation == "acknowledge":
            keys = [str(key) for key in request["keys"]]
            self.spool.acknowledge(keys)
            for key in keys:
                self._unspooled.pop(key, None)
        elif operation == "close":
            self._is_over = True
            self._is_removed = not request.get("keep")
            self._farewell = {"id": number, "result": {}}
        elif operation == "prepare" and self._is_held(request):
            self._say({"id": number, "result": self._prepared or {}})
        else:
            running = self._running
            if operation == "prepare" and running is not None and running.is_same_as(request):
                running.host, running.request = host, request
                return
            if operation == "prepare":
                self._forget_preparation()
                if (other := taken_by(self._lock)) is not None:
                    self._say({"id": number, **refusal(other)})
                    return
            self._queue.appendleft(Job(request, payload, host))

    def _take_visit(self, number: Any, request: dict[str, Any]) -> None:
        key = request["key"]
        if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY:
            raise ValueError("a visit's key is no short text")
        self._owed[key] = number
        held = {job.key for job in (self._running, *self._queue) if job is not None}
        if key in self.spool or key in self._unspooled or key in held:
            return
        if len(self._queue) >= MAX_QUEUE:
            raise ValueError("too many visits are queued")
        self._queue.append(Job(request, b"", None))

    def _state(self) -> dict[str, Any]:
        held = self._preparation.request.get("digest") if self._preparation else None
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "prepared": held if self._prepared is not None else None,
            "spooled": len(self.spool),
            "queued": len(self._queue) + (self._running is not None),
            "busy_s": self._busy_s(),
            "warning": self._warning,
            "identity": self._identity,
        }

    def _busy_s(self) -> float:
        """Return how long what runs now may take at most, in seconds."""
        job, preparation = self._running, self._preparation
        if job is None:
            return 0.0
        again_s = job.limit_s + (preparation.limit_s if preparation is not None else 0.0)
        left_s = max(0.0, self._deadline - time.monotonic())
        return left_s + (MAX_DEATHS - 1 - job.deaths) * again_s

    def _is_held(self, request: dict[str, Any]) -> bool:
        held = self._preparation
        return held is not None and held.is_same_as(request) and self._prepared is not None

    def _forget_preparation(self) -> None:
        """Drop what belongs to the preparation that another takes the place of."""
        self._preparation = self._prepared = None
        self._queue = deque(job for job in self._queue if job.operation not in ("visit", "prepare"))
        if self._running is not None or (self._child is not None and self._child.is_prepared):
            self._running = None
            self._stop_child()

    def _say(self, header: dict[str, Any]) -> None:
        if self._host is not None:
            self._host.send(header)
            self._said = time.monotonic()

    def _deliver(self) -> None:
        """Hand over finished visits, unless that would disturb one."""
        now = time.monotonic()
        has_visits = any(job.key is not None for job in self._queue)
        is_due = not has_visits or self._unspooled or now >= self._delivered + self._deliver_s
        if self._host is None or not is_due:
            return
        self._delivered = now
        ready = [key for key in self._owed if key in self.spool or key in self._unspooled]
        for place, key in enumerate(ready, start=1):
            answer = self._unspooled.get(key) or self.spool.get(key)
            number = self._owed.pop(key)
            if answer is None:
                self.spool.acknowledge([key])  # The disk lost it; the host asks again.
                self._lose_host()
                return
            more = len(ready) - place
            self._say({**answer, "id": number, "key": key, "more": more, "warning": self._warning})

    # -- the agent ---------------------------------------------------------------------------------

    def _work(self) -> None:
        now = time.monotonic()
        if self._running is not None:
            if now >= self._deadline:
                self._fail(f"gave no answer within {self._running.limit_s:.0f} s")
            elif self._child is None or self._child.has_ended():
                self._fail(None)
        while self._running is None:
            self._deliver()
            if not self._has_work:
                break
            self._begin()
        if self._host is not None:
            if self._has_work and now >= self._said + self._beat_s:
                self._say({"beat": True})
            with contextlib.suppress(OSError):
                self._host.flush()
        if not self._has_work and now >= self._idle_since + self._idle_limit_s:
            self._is_over = True
        is_alone = self._host is None and not self._has_work
        if self._lock.is_held and is_alone and now >= self._heard + REST_S:
            self._forget_preparation()
            self._stop_child()
            self._lock.release()

    def _begin(self) -> None:
        """Hand the first request of the queue to the agent, or what has to come before it."""
        job = self._queue[0]
        if self._child is not None and (
            (job.key is not None and self._child.num_visits >= self._agent_visits)
            or self._child.has_ended()
            or (job.operation == "prepare" and self._child.inherited != self._lock.descriptors)
        ):
            self._stop_child()
        is_prepared = self._child is not None and self._child.is_prepared
        if job.needs_preparation and not is_prepared:
            if self._preparation is None:
                self._queue.popleft()
                self._finish(job, _error(f"{job.operation} came before prepare"))
                return
            # It reads the meters of the first agent, in the state in which that one found them.
            before = remembered((self._prepared or {}).get("meters"))
            again = {**self._preparation.request, "meters_before": before}
            job = Job(again, self._preparation.payload, None)
        else:
            self._queue.popleft()
        if self._child is None:
            try:
                self._child = AgentChild(self._command, self._lock.descriptors)
            except OSError as error:
                self._fail(f"cannot be started: {error.strerror}", job)
                return
        if job.needs_preparation:
            self._child.num_visits += 1
        self._num_sent += 1
        self._running = job
        self._deadline = time.monotonic() + job.limit_s
        request = {name: job.request[name] for name in job.request if name not in _OURS}
        self._child.stream.send({**request, "id": self._num_sent}, job.payload)
        with contextlib.suppress(OSError):
            self._child.stream.flush()

    def _serve_child(self, child: AgentChild, *, is_ready: bool) -> None:
        try:
            child.stream.flush()
            for answer, _ in child.stream.receive() if is_ready else []:
                if self._running is None or answer.get("id") != self._num_sent:
                    raise frames.FrameError(f"an answer to request {answer.get('id')!r}")
                self._answered(child, self._running, answer)
        except (OSError, frames.StreamClosed):
            self._fail(None)
        except frames.FrameError as error:
            self._fail(f"sent garbage ({str(error)[:200]})")

    def _answered(self, child: AgentChild, job: Job, answer: dict[str, Any]) -> None:
        self._running = None
        self._worked = time.monotonic()
        has_failed = not isinstance(answer.get("result"), dict)
        if job.operation == "prepare":
            child.is_prepared = not has_failed
            if job.host is not None and not has_failed:
                answer["result"]["device_lock"] = self._lock.state().to_dict()
                self._preparation, self._prepared = job, answer["result"]
            if job.host is None:
                # The keeper's own, for a visit that waits: which fails as the preparation did.
                waiting = self._take_waiting() if has_failed else None
                if waiting is not None:
                    self._finish(waiting, answer)
                return
        self._finish(job, answer)

    def _fail(self, why: str | None, job: Job | None = None) -> None:
        """Replace the agent; what it was doing is tried once more."""
        job, self._running = job or self._running, None
        self._worked = time.monotonic()
        # What has closed its output is ending: what of, its exit code tells.
        how = self._stop_child(patience_s=0.0 if why else DYING_S) or "ended"
        how = why or how
        self.note(f"the agent {how}\n".encode())
        if job is None:
            return
        if job.operation == "prepare" and job.host is None:
            job = self._take_waiting()
            if job is None:
                return
        job.deaths += 1
        if job.deaths < MAX_DEATHS:
            self._queue.appendleft(job)
        else:
            self._finish(job, _error(f"the agent {how}, twice", is_transient=True))

    def _take_waiting(self) -> Job | None:
        """Take the request for which the keeper prepared an agent by itself; None if it is gone."""
        job = next((job for job in self._queue if job.needs_preparation), None)
        if job is not None:
            self._queue.remove(job)
        return job

    def _finish(self, job: Job, answer: dict[str, Any]) -> None:
        answer = {name: answer[name] for name in ("result", "error") if name in answer}
        if job.key is None:
            if job.host is not None and job.host is self._host:
                self._say({**answer, "id": job.request.get("id")})
            return
        try:
            self.spool.append(job.key, answer)
            self._warning = None
        except OSError as error:
            self._unspooled[job.key] = answer
            self._warning = f"the device cannot store answers ({error.strerror}); free some space"

    def _stop_child(self, *, patience_s: float | None = None) -> str | None:
        """End the agent, politely when None; return how it ended if it did so by itself."""
        child, self._child = self._child, None
        if child is None:
            return None
        if patience_s is None and not child.has_ended():
            child.close()
            return None
        return child.kill(patience_s or 0.0)

    def note(self, text: bytes) -> None:
        """Add to the log, as far as the disk takes it."""
        with contextlib.suppress(OSError, campaign_folder.FolderError):
            fd = campaign_folder.open_file("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            with os.fdopen(fd, "ab") as file:
                if file.tell() > MAX_LOG:
                    file.truncate(0)
                file.write(text)


# What the agent need not see of a request.
_OURS = ("key", "limit_s", "digest")


def _error(message: str, *, is_transient: bool = False) -> dict[str, Any]:
    return {"error": {"message": message, "is_transient": is_transient}}


def keep(agent: str, token: str) -> int:
    """Be a campaign's keeper; return the exit code.

    Args:
        agent: The agent's archive.
        token: The campaign's.
    """

    def end(*_: object) -> None:
        raise SystemExit(0)

    # Nobody's child: what ends a link's processes, one below the other, does not find it.
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    try:
        folder = campaign_folder.enter(agent, token)
        held = campaign_folder.lock(folder)
        if held is None:
            campaign_folder.tell(campaign_folder.READY)
            return 0
        try:
            command = [sys.executable, "-B", os.path.abspath(agent)]  # noqa: PTH100
            keeper = Keeper(folder, command)
        except OSError as error:
            raise campaign_folder.FolderError(campaign_folder.cannot(folder, error)) from error
        except private_folder.UnsafeError as error:
            path = f"{folder}/{error.path}"
            raise campaign_folder.FolderError(campaign_folder.unsafe(path, error.reason)) from error
    except campaign_folder.FolderError as error:
        campaign_folder.tell(str(error).encode())
        return 1
    campaign_folder.tell(campaign_folder.READY)
    try:
        keeper.run()
    except Exception:  # noqa: BLE001 - nobody else is there to be told
        keeper.note(traceback.format_exc().encode())
        return 1
    finally:
        os.close(held)
    return 0
