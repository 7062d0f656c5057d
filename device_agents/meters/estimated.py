"""No meter: CPU time of this process times a power that somebody states. Used when asked by name only."""

from __future__ import annotations

import math
import time

from ..onboard.energy.meter import ESTIMATE, Meter, MeterError, MeterGone, MeterInfo, Missing
from ..onboard.files import Files

# A core of a small board at full load, dynamic power; phones have less, servers more.
DEFAULT_WATTS_PER_CORE = 2.0
_MAX_WATTS_PER_CORE = 1_000.0


class CpuTimeMeter:
    """CPU time of this process, all threads, times watts per busy core.

    Args:
        watts_per_core: Power of a busy core beyond idle.

    Raises:
        MeterError: No such power.
    """

    def __init__(self, watts_per_core: float = DEFAULT_WATTS_PER_CORE) -> None:
        if not (math.isfinite(watts_per_core) and 0 < watts_per_core <= _MAX_WATTS_PER_CORE):
            raise MeterError(
                f"estimated:{watts_per_core:g} is no power of a core; write watts above 0 and up to "
                f"{_MAX_WATTS_PER_CORE:g}, such as estimated:3.5"
            )
        self.watts_per_core = watts_per_core
        self.info = MeterInfo(
            name="estimated",
            channel="cpu-time",
            kind=ESTIMATE,
            domain=f"estimate: {watts_per_core:g} W for each busy core, nothing measured",
            unmeasured="everything: memory, accelerators, frequency and idle power are not in it",
            rail="estimate",
            resolution=watts_per_core * time.get_clock_info("process_time").resolution,
            notes=("An estimate: it stands in a column of its own and is never taken for energy.",),
        )
        self._is_open = True

    def read(self) -> float:
        """Return joules."""
        if not self._is_open:
            raise MeterGone("the estimate was closed")
        return time.process_time() * self.watts_per_core

    def with_setting(self, text: str) -> CpuTimeMeter:
        """Return the estimate for what follows `estimated:`, watts per busy core.

        Raises:
            MeterError: It is no power.
        """
        try:
            return CpuTimeMeter(float(text))
        except ValueError as error:
            raise MeterError(
                f"estimated:{text[:20]} is no power of a core; write watts, such as estimated:3.5"
            ) from error

    def close(self) -> None:
        """End it."""
        self._is_open = False


def find(files: Files) -> list[Meter | Missing]:
    """Return the estimate; it is there on every machine."""
    del files
    return [CpuTimeMeter()]
