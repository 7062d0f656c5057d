"""A simulated board in virtual time: the files that real meters read, for a virtual machine.

A call of a variant uses the joules that are given for it, spread evenly over the call; whatever
else the machine does uses a constant power. So the truth of each variant is known, and that of
each interval as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .board_model import Board
from .board_options import BoardOptions
from .board_tree import BoardFiles, BoardTree
from .virtual_machine import MONOTONIC_ORIGIN_S, Cost, VirtualMachine


class VirtualBoard:
    """Gives a virtual machine a board with meters.

    Args:
        machine: Its time and its work; it gets the files and the meters' modules.
        energy: Widths in channels to the true joules per call, net of idle.
        options: What the board has; `active_w` is the power of what else the machine does.
        modules: Meter name to its module, those that look at the board's files.

    Attributes:
        board: Knows the truth of any interval, on the machine's monotonic clock.
        tree: The board's files, with faults on demand.
    """

    def __init__(
        self,
        machine: VirtualMachine,
        energy: Cost,
        options: BoardOptions | None = None,
        modules: Mapping[str, str] | None = None,
    ) -> None:
        self.options = options or BoardOptions()
        self._machine = machine
        self._energy = energy
        self._powers: dict[tuple[int, ...], float] = {(): self.options.active_w}
        self._active_j = 0.0
        self._running: tuple[int, ...] | None = None
        # Joules instead of CPU seconds drive it, and no heat slows it.
        model = replace(self.options.power_model, active_w=1.0, limit_c=1e6)
        self.board = Board(self._now, self._used_j, model, seed=self.options.seed)
        self.tree = BoardTree(self.board, self.options, self._now)
        machine.files = BoardFiles(self.tree)
        machine.meter_modules = dict(modules or {})
        machine.watch = self._watch

    def _now(self) -> float:
        return MONOTONIC_ORIGIN_S + self._machine.elapsed_s

    def _used_j(self) -> float:
        return self._active_j

    def _watch(self, start_s: float, end_s: float, widths: tuple[int, ...] | None) -> None:
        if widths != self._running:
            # Power is another one from here on.
            self.board.advance()
            self._running = widths
        if widths is None:
            return
        if widths not in self._powers:
            latency_s = self._machine.true_latency_s(widths)
            self._powers[widths] = self._energy(widths) / latency_s
        self._active_j += self._powers[widths] * (end_s - start_s)
