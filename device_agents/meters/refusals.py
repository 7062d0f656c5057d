"""Why a kernel file gives no reading, by the error's number, and what to do about each."""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping

from ..onboard.files import Files

# What may pass by itself is tried again.
TRIES = 4
PAUSE_S = 0.05
PASSING = frozenset(
    {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ETIMEDOUT, getattr(errno, "EREMOTEIO", 121)}
)
# What the kernel answers once a device is unplugged or its driver removed.
GONE = frozenset(
    {errno.ENODEV, errno.ENXIO, errno.ENOENT, errno.ESTALE, errno.EBADF, errno.ESHUTDOWN}
)
_NOT_PERMITTED = frozenset({errno.EACCES, errno.EPERM})
_NOT_THERE = (
    "the device behind it is not there or sleeps: plug it in or wake it, look whether its driver is "
    "loaded (lsmod), then probe again"
)
_NO_ANSWER = (
    "the sensor does not answer on its bus: look at its wiring and address and at `dmesg`, load its "
    "driver anew or restart the device"
)
_NOT_OFFERED = "the driver does not offer this on this hardware: take another meter"
_OTHERWISE = "look at what `dmesg` says of this sensor, or take another meter"
_REMEDIES = {
    errno.EIO: _NO_ANSWER,
    getattr(errno, "EREMOTEIO", 121): _NO_ANSWER,
    errno.ENODATA: (
        "the driver has no value: the input is switched off or its part of the chip sleeps; switch it "
        "on, put load on it, then probe again"
    ),
    errno.ENODEV: _NOT_THERE,
    errno.ENXIO: _NOT_THERE,
    errno.ESHUTDOWN: _NOT_THERE,
    errno.ENOENT: "the file has gone since it was listed: probe again",
    errno.EBUSY: (
        "another program or the firmware holds the sensor: end other monitoring programs, then probe "
        "again"
    ),
    errno.EAGAIN: "the sensor has no fresh value yet: wait some seconds after its start, then probe again",
    errno.ETIMEDOUT: (
        "the sensor did not answer in time: let less ask it at once, and restart the device if it "
        "stays so"
    ),
    errno.EINVAL: _NOT_OFFERED,
    errno.EOPNOTSUPP: _NOT_OFFERED,
    errno.ENOSYS: _NOT_OFFERED,
    errno.EROFS: "the file system is mounted without it: look outside of the container",
}


def remedy_of(error: OSError, permit: str, own: Mapping[int, str] | None = None) -> str:
    """Return what to do about a file that cannot be read, one line.

    Args:
        error: What reading it said.
        permit: How to permit it; told only where permission is in the way.
        own: Remedies by the error's number that the meter knows better.
    """
    number = error.errno or 0
    if number in _NOT_PERMITTED:
        return permit
    return (own or {}).get(number) or _REMEDIES.get(number) or _OTHERWISE


def read_at_first(files: Files, path: str) -> str:
    """Return a file's text; what may pass by itself is tried again for a moment.

    Raises:
        OSError: It cannot be read.
    """
    for _ in range(TRIES - 1):
        try:
            return files.read(path)
        except OSError as error:
            if error.errno not in PASSING:
                raise
        time.sleep(PAUSE_S)
    return files.read(path)
