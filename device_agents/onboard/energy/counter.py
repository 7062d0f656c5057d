"""From the readings of a counter of joules to energy between two of its updates.

A counter shows the joules up to its last update. Where two readings in quick succession differ, the
update came between them, so joules and moment belong together: an `Edge`. Between two edges the
energy is exact but for the counter's step and the moments' uncertainty::

    variance of E1 - E0 = 2 step^2 / 12 + power^2 (width0^2 + width1^2) / 12

`width` is the time from before the reading without to after the reading with the update. Where
updates come evenly and each is seen, all of them together tell both ends' moments better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .fluctuation import Pieces, pieces_of
from .mean_power import MeanPower, Refused, median

# A counter may deliver so many periods' energy at once.
LATE_PERIODS = 3.0
# Without a change for so long, and so many periods, an awaited update has not come.
SILENT_S = 0.09
SILENT_PERIODS = 4.0
# Without a change for so many periods (and readings) it sticks.
STUCK_PERIODS = 10.0
STUCK_READINGS = 4
# A single step of so many times the power of the next largest, that makes up so much of the energy,
# is a fault; steps are looked at over so long.
STEP_FACTOR = 4.0
STEP_SHARE = 0.02
STEP_S = 0.02
# Updates are even when each comes within this share of the period of where it should.
EVEN_SHARE = 0.05
# Pieces of a stretch, whose powers tell how power fluctuates, last so long and so many periods.
PIECE_S = 0.025
PIECE_PERIODS = 2.0
# ... the last one at least so much of that.
LAST_SHARE = 0.75
# A line is laid through so many updates at least, where so many of all are seen.
MIN_FITTED = 5
SEEN_SHARE = 0.8


@dataclass(frozen=True)
class Edge:
    """A moment at which the counter's joules are known.

    Args:
        time_s: The moment, in the middle of where it may lie.
        width_s: Length of time in which it lies.
        energy_j: The unwrapped joules.
        index: Number of the reading.
    """

    time_s: float
    width_s: float
    energy_j: float
    index: int


@dataclass(frozen=True)
class Counter:
    """Unwrapped readings of a counter.

    Args:
        before_s: Moment just before each reading.
        after_s: Moment just after it.
        energy_j: Joules since the first reading.
        period_s: Time between two updates.
        resolution_j: Its step.
    """

    before_s: Sequence[float]
    after_s: Sequence[float]
    energy_j: Sequence[float]
    period_s: float
    resolution_j: float

    def edge(self, time_s: float, *, is_first: bool) -> Edge:
        """Return the first edge after a moment, or the last one before.

        Raises:
            Refused: There is none.
        """
        count = len(self.energy_j)
        order = range(1, count) if is_first else range(count - 1, 0, -1)
        for i in order:
            if is_first and self.before_s[i - 1] < time_s:
                continue
            if not is_first and self.after_s[i] > time_s:
                continue
            if self.energy_j[i] == self.energy_j[i - 1]:
                continue
            if not is_first and time_s - self.after_s[i] > self._silent_s:
                # The last update that was seen need not be the last one before it stuck.
                break
            return self.edge_at(i)
        raise Refused("the counter did not change where its update was awaited: it sticks")

    @property
    def _silent_s(self) -> float:
        """After so long without an update, the one that was awaited did not come."""
        return max(SILENT_S, SILENT_PERIODS * self.period_s)

    def edge_at(self, index: int) -> Edge:
        """Return the edge between a reading and the one before."""
        began, ended = self.before_s[index - 1], self.after_s[index]
        # Between readings far apart there were many updates: the last one was a period ago at most.
        began = max(began, self.before_s[index] - self.period_s)
        return Edge((began + ended) / 2, ended - began, self.energy_j[index], index)

    def mean_power(self, first: Edge, last: Edge) -> MeanPower:
        """Return the mean power between two edges.

        Raises:
            Refused: The counter stuck in between.
        """
        if last.time_s <= first.time_s:
            raise Refused("the counter's updates lie too close together for a power")
        first, last = self._fitted(first, last)
        duration = last.time_s - first.time_s
        energy = last.energy_j - first.energy_j
        power = energy / duration
        variance = (2 * self.resolution_j**2 / 12 + self._stamps_j2(first, last, power)) / (
            duration**2
        )
        changes = self._changes(first, last)
        between = self._between(first, last)
        self._check_steps([first, *between, last], energy)
        return MeanPower(
            power,
            variance,
            self._pieces(first, between, last, power),
            first.time_s,
            last.time_s,
            max(changes, int(duration / self.period_s)) if changes else 0,
            0.0,
            (first.width_s**2 + last.width_s**2) / 12,
        )

    def _fitted(self, first: Edge, last: Edge) -> tuple[Edge, Edge]:
        """Return two edges sharpened by all updates between them, where they come evenly.

        Where every update is seen, a straight line through the moments over the updates' numbers
        tells the ends better than these alone. Each moment counts by the inverse of its variance,
        width^2 / 12; the variance of the duration is that of weighted least squares.
        """
        edges = [first, *self._edges(first, last), last]
        periods = (last.time_s - first.time_s) / self.period_s
        if len(edges) < MIN_FITTED or len(edges) - 1 < SEEN_SHARE * periods:
            return first, last
        total = max(1, round(periods))
        period = (last.time_s - first.time_s) / total
        numbers = [round((edge.time_s - first.time_s) / period) for edge in edges]
        weights = [12 / max(edge.width_s, 1e-6) ** 2 for edge in edges]
        sum_w = sum(weights)
        mean_n = sum(w * n for w, n in zip(weights, numbers)) / sum_w
        mean_t = sum(w * edge.time_s for w, edge in zip(weights, edges)) / sum_w
        spread = sum(w * (n - mean_n) ** 2 for w, n in zip(weights, numbers))
        period = sum(w * (n - mean_n) * edge.time_s for w, n, edge in zip(weights, numbers, edges))
        period /= spread
        for number, edge in zip(numbers, edges):
            late = abs(edge.time_s - mean_t - (number - mean_n) * period)
            if late > edge.width_s / 2 + EVEN_SHARE * self.period_s:
                return first, last
        # So that both ends together have the duration's variance; two sharp ends need no line.
        width = math.sqrt(6 / spread) * total
        if 2 * width**2 > (first.width_s**2 + last.width_s**2) / 2:
            return first, last
        start = mean_t + (numbers[0] - mean_n) * period
        end = mean_t + (numbers[-1] - mean_n) * period
        return (
            Edge(start, width, first.energy_j, first.index),
            Edge(end, width, last.energy_j, last.index),
        )

    def _stamps_j2(self, first: Edge, last: Edge, power: float) -> float:
        return power**2 * (first.width_s**2 + last.width_s**2) / 12

    def _changes(self, first: Edge, last: Edge) -> int:
        """Count the readings that differ from the one before; refuse a counter that sticks."""
        changes, changed_s, same = 0, first.time_s, 0
        for i in range(first.index + 1, last.index + 1):
            if self.energy_j[i] != self.energy_j[i - 1]:
                changes, same = changes + 1, 0
                changed_s = self.after_s[i]
                continue
            same += 1
            stuck = self.before_s[i] - changed_s
            if same >= STUCK_READINGS and stuck > max(STUCK_PERIODS * self.period_s, 0.2):
                raise Refused(f"the counter stuck: it did not change for {stuck:.2f} s")
        return changes

    def _edges(self, first: Edge, last: Edge) -> list[Edge]:
        return [
            self.edge_at(i)
            for i in range(first.index + 1, last.index)
            if self.energy_j[i] != self.energy_j[i - 1]
        ]

    def _between(self, first: Edge, last: Edge) -> list[Edge]:
        """Return the edges between two sharp ones, sharpened where updates come evenly.

        Where not every update is seen, which one a reading shows is too often mistaken.
        """
        edges = self._edges(first, last)
        duration = last.time_s - first.time_s
        if len(edges) + 1 < SEEN_SHARE * duration / self.period_s:
            return edges
        period = duration / max(1, round(duration / self.period_s))
        sharp, slack = [], EVEN_SHARE * period
        for edge in edges:
            moment = first.time_s + round((edge.time_s - first.time_s) / period) * period
            if abs(moment - edge.time_s) > edge.width_s / 2 + slack:
                return edges
            sharp.append(Edge(moment, min(edge.width_s, slack), edge.energy_j, edge.index))
        return sharp

    def _check_steps(self, edges: Sequence[Edge], energy: float) -> None:
        """Refuse a counter that makes one step far beyond all others, and that matters.

        The limit of what is believed is that of the hardware: an offset may well lie below it.
        """
        kept = [edges[0]]
        for edge in edges[1:]:
            if edge.time_s - kept[-1].time_s >= max(2 * self.period_s, STEP_S):
                kept.append(edge)
        if len(kept) < 3 + 1:
            return
        pairs = list(zip(kept, kept[1:]))
        powers = [(b.energy_j - a.energy_j) / (b.time_s - a.time_s) for a, b in pairs]
        largest = max(range(len(powers)), key=powers.__getitem__)
        second = max(power for i, power in enumerate(powers) if i != largest)
        a, b = pairs[largest]
        excess = (powers[largest] - second) * (b.time_s - a.time_s)
        if powers[largest] > STEP_FACTOR * second and excess > STEP_SHARE * energy:
            raise Refused(
                f"the counter jumped by {b.energy_j - a.energy_j:.3g} J within "
                f"{b.time_s - a.time_s:.2g} s, {powers[largest] / max(second, 1e-9):.0f} times the "
                "power of every other moment"
            )

    def _pieces(self, first: Edge, between: Sequence[Edge], last: Edge, power: float) -> Pieces:
        """Return what pieces of the stretch tell about how power varies."""
        edges = [first]
        # Less by a bit: moments that are computed may be early by as much.
        piece = 0.99 * max(PIECE_S, PIECE_PERIODS * self.period_s)
        for edge in between:
            if edge.width_s > piece:
                # A pause while it was read: a piece that ends at such a moment looks like a load.
                continue
            late = edge.time_s - edges[-1].time_s >= piece
            if late and last.time_s - edge.time_s >= LAST_SHARE * piece:
                edges.append(edge)
        edges.append(last)
        pairs = list(zip(edges, edges[1:]))
        powers = [(b.energy_j - a.energy_j) / (b.time_s - a.time_s) for a, b in pairs]
        length = (last.time_s - first.time_s) / len(pairs)
        # What uncertain moments and the step add to the spread of the pieces is not fluctuation.
        own = median([self._stamps_j2(a, b, power) for a, b in pairs])
        own += 2 * self.resolution_j**2 / 12
        ends = self._stamps_j2(first, last, power) + 2 * self.resolution_j**2 / 12
        return pieces_of(powers, length, own / length**2, ends / length**2)


def unwrap(
    before_s: Sequence[float],
    after_s: Sequence[float],
    values: Sequence[float],
    range_j: float | None,
    max_power_w: float,
    period_s: float,
) -> list[float]:
    """Return joules since the first reading.

    Between two readings a counter may have started again at 0 once, or, where they lie far apart,
    several times: so often as the power allows. If it allows several numbers, the one counts that
    fits the power of the other intervals, if only one does.

    Args:
        before_s: Moment just before each reading.
        after_s: Moment just after it.
        values: What was read, in J.
        range_j: Where the counter starts again; None if it does not.
        max_power_w: More is not believed.
        period_s: Time between two updates.

    Raises:
        Refused: It went backwards, jumped, or the number of times is open.
    """
    if range_j is not None and any(not 0 <= value <= range_j for value in values):
        raise Refused(f"the counter left its range of 0 to {range_j:g} J")
    certain: list[tuple[float, float]] = []
    for i in range(1, len(values)):
        most = _most_j(before_s, after_s, i, max_power_w, period_s)
        change = values[i] - values[i - 1]
        if 0 <= change <= most and (range_j is None or change + range_j > most):
            certain.append((change, before_s[i] - before_s[i - 1]))
    spent = sum(duration for _, duration in certain)
    typical_w = sum(change for change, _ in certain) / spent if spent > 0 else None
    total, joules = 0.0, [0.0]
    for i in range(1, len(values)):
        most = _most_j(before_s, after_s, i, max_power_w, period_s)
        change = values[i] - values[i - 1]
        total += _true_change_j(change, range_j, most, typical_w, before_s[i] - before_s[i - 1])
        joules.append(total)
    return joules


def _most_j(
    before_s: Sequence[float], after_s: Sequence[float], i: int, max_power_w: float, period_s: float
) -> float:
    return max_power_w * (after_s[i] - before_s[i - 1] + LATE_PERIODS * period_s)


def _true_change_j(
    change: float,
    range_j: float | None,
    most: float,
    typical_w: float | None,
    duration_s: float,
) -> float:
    if range_j is None:
        if change < 0:
            raise Refused(f"the counter went backwards by {-change:.3g} J")
        if change > most:
            raise Refused(f"the counter jumped by {change:.3g} J, more than the power allows")
        return change
    fewest = change if change >= 0 else change + range_j
    if fewest > most:
        if change < 0:
            raise Refused(f"the counter went backwards by {-change:.3g} J")
        raise Refused(f"the counter jumped by {change:.3g} J, more than the power allows")
    times = math.floor((most - fewest) / range_j)
    if times == 0:
        return fewest
    if typical_w is None:
        raise Refused("the counter may have wrapped several times between two readings")
    expected = typical_w * duration_s
    nearest = min(times, max(0, round((expected - fewest) / range_j)))
    found = fewest + nearest * range_j
    if abs(found - expected) > range_j / 4:
        raise Refused("the counter may have wrapped several times between two readings")
    return found
