"""What of its machine the agent may hold still while it measures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from .frequency import refusal


def permissions(cpus: Sequence[int], root: str = "/") -> dict[str, dict[str, Any]]:
    """Return `frequency_lock` and `affinity`: each `is_permitted`, and in words what is in the way.

    Nothing is changed.

    Args:
        cpus: CPUs that would measure.
        root: Where `sys` is; another folder than `/` for tests.
    """
    return {
        name: {"is_permitted": reason is None, "reason": reason}
        for name, reason in (("frequency_lock", refusal(cpus, root)), ("affinity", _unbindable()))
    }


def _unbindable() -> str | None:
    if not hasattr(os, "sched_setaffinity"):
        return "this system cannot bind a process to CPUs"
    try:
        # To those that it has: allowed or not, nothing changes.
        os.sched_setaffinity(0, os.sched_getaffinity(0))
    except OSError as error:
        return (
            f"binding to CPUs is not permitted ({error.strerror}): allow sched_setaffinity in the "
            "container's or app's sandbox"
        )
    return None
