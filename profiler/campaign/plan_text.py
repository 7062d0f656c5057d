"""What a campaign has before it, and durations, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .plan import VisitPlan


def plan_text(plan: VisitPlan, num_open: int, visit_s: float, clock: str = "") -> str:
    """Return what is to come as a sentence: visits, how long they take, what may follow.

    Args:
        plan: The visits.
        num_open: How many are known to remain.
        visit_s: What one takes, roughly.
        clock: Whose time that is, where it is not this world's.
    """
    if not num_open:
        return f"all {plan.num_done} visits are there already: nothing to measure"
    before = f", {plan.num_done} made before" if plan.num_done else ""
    total = plan.num_done + num_open
    text = f"{total} visits{before}; about {duration_text(num_open * visit_s)}{clock} to go"
    further = plan.protocol.max_further_visits * len(plan.ids)
    if not further:
        return text
    aim = f"+-{100 * plan.protocol.rel_error:g} %"
    return (
        f"{text}, then at most {further} further visits ({duration_text(further * visit_s)}) of "
        f"variants whose latency misses the aim of {aim}"
    )


def duration(seconds: float) -> str:
    """Return a duration as `1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration_text(seconds: float) -> str:
    """Return a duration in words where it is long: `2:03`, `3.4 hours`."""
    return duration(seconds) if seconds < 3600 else f"{seconds / 3600:.1f} hours"
