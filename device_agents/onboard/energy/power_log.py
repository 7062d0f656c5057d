"""Records what meters say while a visit runs: every reading with the moments around it.

The stamps come from the clock that visits are timed with, so a meter's readings and a variant's
calls share one time line and nothing has to be synchronised.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import threading
from collections.abc import Sequence

from ..machine.clock import MachineClock
from .meter import Meter, MeterError, MeterGone

# Readings a second cost the device little; idle is measured while they are made.
INTERVAL_S = 0.05
# Readings come up to so much earlier or later, at random. A meter that updates in step with them would
# be late by the same at both ends of every stretch, however often that is repeated.
DITHER = 0.1
# Least time between two readings where an update is awaited.
FINE_S = 0.0002
# So many of them are made in any case: a pause of the machine that outlasts the limit is no silence.
MIN_TRIES = 5


class PowerLog:
    """Readings of one meter, in order.

    Attributes:
        before_s: Moment just before each reading.
        after_s: Moment just after it.
        values: J (counters) or W (samplers).
        failed_s: Moments of the readings that failed.
        reason: Why the first of them failed; empty while none did.
        gone: Why the meter is no longer there; empty while it is.

    Args:
        meter: What is read.
        clock: Stamps the readings.
    """

    def __init__(self, meter: Meter, clock: MachineClock) -> None:
        self.meter = meter
        self.clock = clock
        self.before_s: list[float] = []
        self.after_s: list[float] = []
        self.values: list[float] = []
        self.failed_s: list[float] = []
        self.reason = ""
        self.gone = ""
        self._lock = threading.Lock()
        self._random = random.Random(clock.monotonic_s())  # noqa: S311 - a phase, not a secret

    @property
    def interval_s(self) -> float:
        """Time between two readings in the background, on average."""
        return max(INTERVAL_S, self.meter.info.read_s)

    def next_interval_s(self) -> float:
        """Return the time to the next reading in the background."""
        return self.interval_s * (1 + DITHER * (2 * self._random.random() - 1))

    def read(self) -> bool:
        """Make a reading and keep it; return whether there is one."""
        with self._lock:
            if self.gone:
                self.failed_s.append(self.clock.monotonic_s())
                return False
            before = self.clock.monotonic_s()
            try:
                value = float(self.meter.read())
                if not math.isfinite(value):
                    raise MeterError(f"it shows {value}, which is no number")
            except (MeterError, OSError, ValueError, TypeError) as error:
                self.failed_s.append(before)
                self.reason = self.reason or str(error)[:500]
                if isinstance(error, MeterGone):
                    self.gone = str(error)[:500] or "it is no longer there"
                return False
            self.before_s.append(before)
            self.after_s.append(self.clock.monotonic_s())
            self.values.append(value)
            return True

    def clear(self) -> None:
        """Forget all readings; what has gone stays gone."""
        with self._lock:
            self.before_s, self.after_s, self.values = [], [], []
            self.failed_s, self.reason = [], self.gone

    def await_update(self, limit_s: float) -> bool:
        """Read in quick succession until the value changes; return whether it did in time.

        The last two readings are then as close together as the meter allows, with its update in
        between.
        """
        pause = max(FINE_S, self.meter.info.read_s)
        deadline = self.clock.monotonic_s() + limit_s
        self.read()
        if not self.values:
            return False
        known = len(self.values)
        value = self.values[-1]
        tries = 0
        while tries < MIN_TRIES or self.clock.monotonic_s() < deadline:
            tries += 1
            self.clock.sleep(pause)
            self.read()
            if self.gone:
                return False
            if len(self.values) > known and self.values[-1] != value:
                return True
        return False


class Recorder:
    """Reads meters in the background while a visit runs.

    Args:
        logs: Where the readings go.
        cpus: The CPUs that the readings may use; the visit's own are left in peace. Empty for any.
    """

    def __init__(self, logs: Sequence[PowerLog], cpus: Sequence[int] = ()) -> None:
        self._logs = logs
        self._cpus = cpus
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to read."""
        self._thread = threading.Thread(target=self._run, name="power-log", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Read no more; harmless when it does not."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join(timeout=10.0)
        self._thread = None

    def _run(self) -> None:
        if self._cpus and hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(OSError):
                # Of this thread alone.
                os.sched_setaffinity(0, self._cpus)
        clock = self._logs[0].clock
        due = [clock.monotonic_s()] * len(self._logs)
        while True:
            for index, log in enumerate(self._logs):
                now = clock.monotonic_s()
                if now >= due[index]:
                    log.read()
                    # After a stall the lost readings are not made up for: they are missing.
                    due[index] = max(due[index] + log.next_interval_s(), now)
            if self._is_over.wait(max(0.0, min(due) - clock.monotonic_s())):
                return
