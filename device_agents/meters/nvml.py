"""NVIDIA's graphics cards by NVML, with the vendor's package nvidia-ml-py.

Each query is tried on each card, since a library that loads and a card that is found say nothing: on
a Jetson NVML starts and then answers NOT_SUPPORTED. The energy counter comes first, then the power of
the moment, then the power averaged over a window. A card with a counter has its power as a second
channel on the same rail, to check one against the other.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from ..onboard.energy.meter import (
    COUNTER,
    SAMPLER,
    Meter,
    MeterError,
    MeterGone,
    MeterInfo,
    Missing,
)
from ..onboard.files import Files
from .readings import channel_name, check_power

_INSTALL = "pip install nvidia-ml-py"
_DRIVER = "proc/driver/nvidia/version"
# Faster polling has been seen to return errors; the counter moves every 100 ms.
_READ_S = 0.05
_COUNTER_UPDATE_S = 0.1
_AVERAGING_S = 1.0
_MILLI = 1e-3
# NVML_FI_DEV_POWER_INSTANT, which packages before 12.535 do not name.
_POWER_INSTANT = 186
# Peaks of milliseconds go beyond the highest limit that can be set.
_PEAK_FACTOR = 2.0
_MAX_POWER_W = 2_000.0
# What the library writes where it has no value.
_NO_UINT = 2**32 - 1
_NO_UINT64 = 2**64 - 1
_PARTLY_SAMPLED = ("A100", "H100", "GH200", "H200")
_GONE = (
    "NVMLError_GpuIsLost",
    "NVMLError_ResetRequired",
    "NVMLError_DriverNotLoaded",
    "NVMLError_Uninitialized",
    "NVMLError_GpuNotFound",
)
_REFUSED = {
    "NVMLError_NoPermission": "run in a session that may open /dev/nvidia* (group `video` or root)",
    "NVMLError_DriverNotLoaded": "load the driver: sudo modprobe nvidia",
    "NVMLError_LibraryNotFound": "install the driver's libnvidia-ml.so.1 (package libnvidia-compute)",
    "NVMLError_LibRmVersionMismatch": "restart, so that driver and library are of one version",
}
_OTHERWISE = "see what `nvidia-smi` says"


class NvmlMeter:
    """One query on one card.

    Args:
        info: What is known about it.
        library: The module pynvml.
        query: Asks the card, in mJ or mW.
    """

    def __init__(self, info: MeterInfo, library: Any, query: Callable[[], int]) -> None:
        self.info = info
        self._library = library
        self._query = query
        library.nvmlInit()
        self._is_open = True

    def read(self) -> float:
        """Return joules since the driver was loaded, or watts."""
        where = f"NVML's {self.info.channel}"
        if not self._is_open:
            raise MeterGone(f"{where} was closed")
        try:
            milli = self._query()
        except self._library.NVMLError as error:
            if type(error).__name__ in _GONE:
                raise MeterGone(f"{where} is gone ({error}): see what `nvidia-smi` says") from error
            raise MeterError(f"{where} cannot be read now ({error})") from error
        if self.info.kind == SAMPLER:
            return check_power(milli * 1e-3, self.info.max_power_w, where)
        if not 0 <= milli < _NO_UINT64:
            raise MeterError(
                f"{where} holds {milli} mJ, which the library writes where it has no value"
            )
        return milli * 1e-3

    def close(self) -> None:
        """Let go of the library."""
        if self._is_open:
            self._is_open = False
            try:
                self._library.nvmlShutdown()
            except self._library.NVMLError:
                # It was lost with the driver.
                return


def find(files: Files) -> list[Meter | Missing]:
    """Return each card's counter, else its power; nothing below another root than `/`."""
    if files.root != "/":
        return []
    has_driver = files.text(_DRIVER) is not None or any(
        name.startswith("nvidia") for name in files.list("dev")
    )
    try:
        library = importlib.import_module("pynvml")
    except ImportError:
        reason = "an NVIDIA driver is loaded, but Python's package for NVML is not installed"
        return [Missing("nvml", "", reason, _INSTALL)] if has_driver else []
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        if type(error).__name__ == "NVMLError_LibraryNotFound" and not has_driver:
            return []
        return [_missing("", "NVML does not start", error)]
    try:
        return _cards(library)
    except library.NVMLError as error:
        return [_missing("", "NVML does not list its cards", error)]
    finally:
        library.nvmlShutdown()


def _cards(library: Any) -> list[Meter | Missing]:
    found: list[Meter | Missing] = []
    for index in range(library.nvmlDeviceGetCount()):
        try:
            handle = library.nvmlDeviceGetHandleByIndex(index)
        except library.NVMLError as error:
            found.append(_missing(f"gpu{index}", f"NVML does not open card {index}", error))
            continue
        found += _meters(library, index, handle)
    return found


def _meters(library: Any, index: int, handle: Any) -> list[Meter | Missing]:
    """Return the meters of a card, the best first."""
    name = _text(_ask(library, lambda: library.nvmlDeviceGetName(handle))) or "unknown card"
    uuid = _text(_ask(library, lambda: library.nvmlDeviceGetUUID(handle))) or f"card {index}"
    modes = _ask(library, lambda: library.nvmlDeviceGetMigMode(handle))
    shared: tuple[str, ...] = ()
    if modes and modes[0] == 1:
        shared = ("MIG is on: what runs on the card's other instances is in its energy.",)
    limits = _ask(library, lambda: library.nvmlDeviceGetPowerManagementLimitConstraints(handle))
    max_power_w = _MAX_POWER_W
    if limits and 0 < limits[1] < _NO_UINT:
        max_power_w = limits[1] * 1e-3 * _PEAK_FACTOR
    identity = f"{name[:60]}, {uuid[:60]}."
    errors: list[Exception] = []

    def works(query: Callable[[], int]) -> bool:
        try:
            return 0 < query() < _NO_UINT64
        except (library.NVMLError, AttributeError) as error:
            # An old package lacks a query, or the driver does not answer it.
            errors.append(error)
            return False

    def meter(channel: str, query: Callable[[], int], *notes: str, **details: Any) -> NvmlMeter:
        info = MeterInfo(
            name="nvml",
            channel=channel,
            domain=f"graphics card {index}: the whole board",
            unmeasured="processor, memory, disks, losses of the supply",
            rail=f"nvml/{channel_name(uuid, str(index))}",
            max_power_w=max_power_w,
            read_s=_READ_S,
            is_partial=True,
            resolution=_MILLI,
            notes=(identity, *shared, *notes),
            **details,
        )
        return NvmlMeter(info, library, query)

    def energy() -> int:
        return int(library.nvmlDeviceGetTotalEnergyConsumption(handle))

    def instant() -> int:
        return _field_mw(library, handle)

    def average() -> int:
        return int(library.nvmlDeviceGetPowerUsage(handle))

    meters: list[Meter | Missing] = []
    if works(energy):
        meters.append(
            meter(
                f"gpu{index}",
                energy,
                "It moves in steps of about 100 ms.",
                kind=COUNTER,
                update_period_s=_COUNTER_UPDATE_S,
            )
        )
    channel = f"gpu{index}-power" if meters else f"gpu{index}"
    if works(instant):
        meters.append(meter(channel, instant, "Power of the moment (field 186).", kind=SAMPLER))
    elif works(average):
        notes = ["Power averaged over up to 1 s: discard the first second of a window."]
        if any(part in name for part in _PARTLY_SAMPLED):
            notes.append("Only about 25 % of the time goes into this average on A100 and H100.")
        meters.append(meter(channel, average, *notes, kind=SAMPLER, averaging_s=_AVERAGING_S))
    if meters:
        return meters
    said = "; ".join(sorted({str(error) for error in errors})) or "0 or no value"
    kinds = {type(error).__name__ for error in errors}
    remedy = _OTHERWISE
    if kinds & set(_REFUSED):
        remedy = _REFUSED[min(kinds & set(_REFUSED))]
    elif "NVMLError_NotSupported" in kinds:
        remedy = (
            "on a Jetson use --meter jetson; in a virtual machine (vGPU) measure on its host; on an old "
            "card use an external meter"
        )
    reason = f"{identity} It answers neither energy nor power ({said})"
    return [Missing("nvml", f"gpu{index}", reason, remedy)]


def _field_mw(library: Any, handle: Any) -> int:
    """Return the power of the moment in mW.

    Raises:
        NVMLError: The library's answer.
    """
    value = library.nvmlDeviceGetFieldValues(handle, [_POWER_INSTANT])[0]
    if value.nvmlReturn != library.NVML_SUCCESS:
        raise library.NVMLError(value.nvmlReturn)
    return int(value.value.uiVal)


def _ask(library: Any, query: Callable[[], Any]) -> Any:
    """Return the answer, None if the card has none or the package does not know the question."""
    try:
        return query()
    except (library.NVMLError, AttributeError):
        return None


def _text(answer: Any) -> str:
    """Return an answer as text: packages before 11.515 give bytes; empty without one."""
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer or "")


def _missing(channel: str, what: str, error: Exception) -> Missing:
    return Missing(
        "nvml", channel, f"{what} ({error})", _REFUSED.get(type(error).__name__, _OTHERWISE)
    )
