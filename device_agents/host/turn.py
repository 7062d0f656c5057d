"""Waiting for the device, while another campaign measures on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from joulemap import interruption
from joulemap.showable_text import showable

from ..errors import DeviceInUseError
from ..onboard.keeper import device_lock
from ..onboard.preparation_answer import Exclusivity

T = TypeVar("T")


def acquire(lock: device_lock.DeviceLock) -> None:
    """Take this machine's lock.

    Raises:
        DeviceInUseError: Another program holds it.
    """
    other = device_lock.taken_by(lock)
    if other is not None:
        raise DeviceInUseError(other.text, is_ending=other.is_ending)


def wait_here(timeout_s: float) -> None:
    """Return when this machine's lock was let go, or the time limit passed."""
    device_lock.wait(timeout_s, interruption.is_asked)
    interruption.check()


def unkept(state: Exclusivity) -> str | None:
    """Return a warning where nothing keeps campaigns on a device apart, None where they are.

    Args:
        state: What the device says of its lock.
    """
    if not state.reason:
        return None
    why = showable(state.reason, 300)
    return (
        f"warning: campaigns on this device are not kept apart, since {why}: "
        "see to it that no other one measures there meanwhile. Neither would notice, and each would "
        "spoil the other's seconds and joules"
    )


def when_free(
    attempt: Callable[[], T],
    wait: Callable[[float], object],
    limit_s: float,
    on_message: Callable[[str], None],
) -> T:
    """Return what an attempt returns once no other campaign measures on the device.

    Args:
        attempt: Raises `DeviceInUseError` as long as one does.
        wait: Returns when that one has ended, at the latest after so many seconds.
        limit_s: How long to wait.
        on_message: Is told for whom.

    Raises:
        DeviceInUseError: One still measures there when the time is over.
    """
    began = time.monotonic()
    told = None
    while True:
        try:
            return attempt()
        except DeviceInUseError as error:
            waited_s = time.monotonic() - began
            # One that was killed is no reason to give up: its agent ends by itself.
            ends_s = max(limit_s, device_lock.HAND_OVER_S) if error.is_ending else limit_s
            if waited_s >= ends_s:
                raise DeviceInUseError(
                    error.holder, is_ending=error.is_ending, waited_s=waited_s
                ) from error
            if error.holder != told and not error.is_ending:
                on_message(
                    f"another campaign measures on the device: {error.holder}; waiting up to "
                    f"{ends_s - waited_s:.0f} s for it to end"
                )
                told = error.holder
            wait(ends_s - waited_s)
