"""A metered visit that notes what a meter of the process's CPU time should say of its window."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from joulemap.device_agents.onboard.energy.power_log import Recorder
from joulemap.device_agents.onboard.energy.visit import ChosenMeter, EnergyVisit
from joulemap.device_agents.onboard.visit_settings import VisitSettings


class WatchedVisit(EnergyVisit):
    """The energy of a visit in real time, with the CPU time that the process used in its window.

    Blocks that still warmed up are in the window as well, so those that count in the end do not tell
    the truth about it: on a shared core their calls may be dearer or cheaper than the others.

    Attributes:
        cpu_s: CPU time in the window.
        is_open: Whether the window is.

    Args:
        chosen: The meters.
        make_recorder: Makes what reads them in the background.
        settings: How long its window lasts.
    """

    def __init__(
        self,
        chosen: Sequence[ChosenMeter],
        clock: Any,
        make_recorder: Callable[..., Recorder],
        settings: VisitSettings,
    ) -> None:
        super().__init__(chosen, clock, make_recorder, settings, "seed")
        self.cpu_s = 0.0
        self.is_open = False

    def before(self, run: Callable[[], None]) -> None:
        super().before(run)
        self.is_open = True
        self.cpu_s = -time.process_time()

    def ended(self) -> None:
        self.cpu_s += time.process_time()
        self.is_open = False
        super().ended()
