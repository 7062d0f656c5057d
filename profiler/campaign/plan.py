"""Which visits a campaign still has to make, decided from what its journal holds.

::

    rounds 1..v            every variant once a round, in random order
    re-visits, v rounds    max(40, 10 %) of the variants again, for the noise floor
    further rounds         the variants whose interval is still too wide

At the end of every round all visits are judged together; visits that failed or were rejected are
made again, a few times at most. Between two judgements nothing is decided: those visits are a pass,
which a remote device may be sent ahead of time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence

from ...datasets import Conditions, NetworkSpec, Visit
from ...datasets.estimation import CampaignEstimate, VisitKey
from ...datasets.judgement_settings import DEFAULT_JUDGEMENT, JudgementSettings
from ...datasets.measurement import Measurement, measurements_of
from ...datasets.records import variant_id
from .protocol import Protocol
from .sampling import WidthTuple

MIN_REVISITED = 40
REVISITED_SHARE = 0.1


class VisitPlan:
    """The visits that remain, in order. The order depends on seed and journal alone.

    Args:
        spec: The network.
        conditions: What all variants share.
        variants: Width vectors, in the sample's order.
        protocol: How a variant is measured.
        seed: Of the order within rounds.
        made: Visits that the journal holds.
        rejections: Visits among them that were rejected, with the reason.
        reject: Is told of every further rejection.
        judgement: What the visits are judged by.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        conditions: Conditions,
        variants: Sequence[WidthTuple],
        protocol: Protocol,
        seed: int,
        made: Sequence[Visit] = (),
        rejections: Mapping[VisitKey, str] | None = None,
        reject: Callable[[VisitKey, str], None] = lambda key, reason: None,
        judgement: JudgementSettings = DEFAULT_JUDGEMENT,
    ) -> None:
        self.spec, self.conditions, self.protocol, self.seed = spec, conditions, protocol, seed
        self.ids = {widths: variant_id(spec.fingerprint, widths, conditions) for widths in variants}
        self.visits: list[Visit] = []
        self.rejections = dict(rejections or {})
        self._reject = reject
        self.judgement = judgement
        self._attempts: dict[tuple[str, int], int] = {}
        self._closed: set[tuple[str, int]] = set()
        self._spent_s = self._longest_s = 0.0
        # What remains of the pass, the next visit first.
        self._pass: list[tuple[WidthTuple, int, bool]] = []
        self.first_error: str | None = None
        for visit in made:
            self.note(visit)

    # -- progress --------------------------------------------------------------------------------

    @property
    def revisited(self) -> list[WidthTuple]:
        """The variants that are measured twice, for the noise floor."""
        count = max(MIN_REVISITED, math.ceil(REVISITED_SHARE * len(self.ids)))
        return list(self.ids)[: count if self.protocol.has_revisits else 0]

    @property
    def num_open(self) -> int:
        """Visits that are known to remain; more may follow when they are judged."""
        visits = self.protocol.visits
        slots = [(name, i) for name in self.ids.values() for i in range(visits)]
        slots += [(self.ids[v], visits + i) for v in self.revisited for i in range(visits)]
        return sum(slot not in self._closed for slot in slots) or len(self._further())

    @property
    def num_done(self) -> int:
        """Visits that succeeded and were not rejected."""
        return sum(v.timing is not None and v.key not in self.rejections for v in self.visits)

    @property
    def is_out_of_time(self) -> bool:
        """Whether the time cap is used up."""
        cap = self.protocol.time_cap_s
        return cap is not None and self._spent_s >= cap

    def note(self, visit: Visit) -> None:
        """Take a visit that was made into account."""
        self.visits.append(visit)
        slot = (visit.variant_id, visit.visit_index)
        self._attempts[slot] = max(self._attempts.get(slot, 0), visit.attempt + 1)
        if visit.timing is not None:
            timing = visit.timing
            ends = timing.reference_before.wall_s + timing.reference_after.wall_s
            visit_s = timing.measuring_s + timing.load_s + ends
            if visit.power_trace is not None and visit.power_trace.times_s:
                visit_s += visit.power_trace.idle_s
            self._spent_s += visit_s
            self._longest_s = max(self._longest_s, visit_s)
            # Times without the energy that was to be read with them count, and are made again.
            lacks_energy = visit.energy_refused is not None
            may_retry = self._attempts[slot] < self.protocol.max_attempts
            if visit.key not in self.rejections:
                if not (lacks_energy and may_retry):
                    self._closed.add(slot)
                return
        else:
            self.first_error = self.first_error or visit.error
        is_stable = visit.error is not None and visit.error.startswith("stable")
        if is_stable or self._attempts[slot] >= self.protocol.max_attempts:
            self._closed.add(slot)

    # -- order -----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Visit]:
        # Judging late visits can open earlier ones again: over when a whole pass finds nothing.
        made = -1
        while made != len(self.visits):
            made = len(self.visits)
            visits = self.protocol.visits
            for index in range(visits):
                yield from self._round(index, list(self.ids), is_revisit=False)
            for index in range(visits, 2 * visits):
                yield from self._round(index, self.revisited, is_revisit=True)
            while waiting := self._further():
                random.Random(f"{self.seed}/{len(self.visits)}").shuffle(waiting)  # noqa: S311
                yield from self._made([(widths, index, False) for widths, index in waiting])
                if self._pass:
                    return
                self._judge()

    def _further(self) -> list[tuple[WidthTuple, int]]:
        """The imprecise variants that have visits left, with the next one's index."""
        first = 2 * self.protocol.visits
        slots = range(first, first + self.protocol.max_further_visits)
        found = []
        for widths in self._imprecise():
            index = next((i for i in slots if (self.ids[widths], i) not in self._closed), None)
            if index is not None:
                found.append((widths, index))
        return found

    def _round(
        self, index: int, variants: list[WidthTuple], *, is_revisit: bool
    ) -> Iterator[Visit]:
        random.Random(f"{self.seed}/{index}").shuffle(variants)  # noqa: S311
        while waiting := [v for v in variants if (self.ids[v], index) not in self._closed]:
            yield from self._made([(widths, index, is_revisit) for widths in waiting])
            if self._pass:
                return
            self._judge()

    def _made(self, visits: list[tuple[WidthTuple, int, bool]]) -> Iterator[Visit]:
        """Yield the visits of one pass; some remain in it when the time is up."""
        self._pass = visits
        while self._pass and not self.is_out_of_time:
            widths, index, is_revisit = self._pass[0]
            yield self._visit(widths, index, is_revisit=is_revisit)
            del self._pass[:1]

    def ahead(self, number: int) -> list[Visit]:
        """Return the visit that was just yielded and those of its pass that follow for certain.

        Args:
            number: At most so many; fewer where the time cap may come first.
        """
        cap = self.protocol.time_cap_s
        if cap is not None:
            visit_s = self._longest_s or self.protocol.visit_duration_s
            number = min(number, 1 + max(0, math.floor((cap - self._spent_s) / visit_s)))
        return [
            self._visit(widths, index, is_revisit=is_revisit)
            for widths, index, is_revisit in self._pass[:number]
        ]

    def _visit(self, widths: WidthTuple, index: int, *, is_revisit: bool) -> Visit:
        return Visit(
            spec_id=self.spec.fingerprint,
            widths=widths,
            conditions=self.conditions,
            visit_index=index,
            attempt=self._attempts.get((self.ids[widths], index), 0),
            sequence=len(self.visits),
            started_at="",
            is_revisit=is_revisit,
        )

    # -- judgement -------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Reject what the machine disturbed; those visits are open again while tries remain."""
        estimate = CampaignEstimate(self.visits, self.rejections, self.judgement)
        for key, reason in estimate.rejections.items():
            if key not in self.rejections:
                self.rejections[key] = reason
                self._reject(key, reason)
                slot = key[:2]
                if self._attempts[slot] < self.protocol.max_attempts:
                    self._closed.discard(slot)

    def measurements(self) -> list[Measurement]:
        """Return what all visits say so far, one measurement per variant visited."""
        return measurements_of(self.visits, self.rejections, self.judgement)

    def _imprecise(self) -> list[WidthTuple]:
        """The variants whose 95 % interval is wider than the protocol wants."""
        names = {name: widths for widths, name in self.ids.items()}
        return [
            names[measurement.visits[0].variant_id]
            for measurement in self.measurements()
            if measurement.latency is not None
            and measurement.latency.relative_error > self.protocol.rel_error
            and measurement.visits[0].variant_id in names
        ]
