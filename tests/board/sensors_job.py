"""Runs in the virtual machine: puts a battery and an INA219 on its bus, reads them as meters.

The bus holds what is written to it; the drivers are the kernel's own. Standard library only.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

JOB = Path("/tmp/job")  # noqa: S108 - the machine has one program and ends with it
BATTERY, SENSOR = 0x0B, 0x40
FORCED_ADDRESS, TRANSFER = 0x0706, 0x0720
WORD, WRITE = 3, 0
# Of a smart battery: mode, temperature, voltage, current, share, charges, state, design, version.
BATTERY_REGISTERS = {
    0x03: 0x0000,
    0x08: 2981,
    0x09: 3850,
    0x0A: 0x10000 - 500,
    0x0D: 80,
    0x0F: 3000,
    0x10: 4000,
    0x16: 0x00C0,
    0x18: 4000,
    0x1A: 0x0031,
}
# Of an INA219 at a shunt of 10 mOhm: 5 V (4 mV a step, above three bits of state), 125 steps of
# 20 mW, 500 of 1 mA. Its words are the other way round.
SENSOR_REGISTERS = {0x02: (1250 << 3) | 2, 0x03: 125, 0x04: 500}


class _Message(ctypes.Structure):
    _fields_ = (
        ("direction", ctypes.c_uint8),
        ("command", ctypes.c_uint8),
        ("size", ctypes.c_uint32),
        ("data", ctypes.c_void_p),
    )


class Bus:
    """The bus without wires."""

    def __init__(self) -> None:
        (adapter,) = (
            item.parent
            for item in Path("/sys/bus/i2c/devices").glob("i2c-*/name")
            if "stub" in item.read_text()
        )
        self._adapter = adapter
        self._file = Path("/dev", adapter.name).open("r+b", buffering=0)  # noqa: SIM115 - as the machine

    def write(self, address: int, register: int, value: int) -> None:
        """Set a register of 16 bits."""
        fcntl.ioctl(self._file, FORCED_ADDRESS, address)
        data = ctypes.create_string_buffer(value.to_bytes(2, sys.byteorder), 34)
        message = _Message(WRITE, register, WORD, ctypes.addressof(data))
        fcntl.ioctl(self._file, TRANSFER, message)

    def add(self, name: str, address: int) -> None:
        """Let a driver take a chip."""
        (self._adapter / "new_device").write_text(f"{name} {address:#x}\n")


def main() -> None:
    """Write what the meters say to the job's folder."""
    result: dict[str, Any] = {}
    try:
        result.update(measure())
    except Exception:  # noqa: BLE001 - told outside
        result["problem"] = traceback.format_exc()
    (JOB / "result.json").write_text(json.dumps(result))


def measure() -> dict[str, Any]:
    """Return the readings of all meters."""
    bus = Bus()
    for register, value in BATTERY_REGISTERS.items():
        bus.write(BATTERY, register, value)
    bus.add("sbs-battery", BATTERY)
    bus.add("ina219", SENSOR)
    time.sleep(0.5)
    for register, value in SENSOR_REGISTERS.items():
        bus.write(SENSOR, register, int.from_bytes(value.to_bytes(2, "big"), "little"))

    sys.path.insert(0, str(JOB / "agent.pyz"))
    from joulemap_agent.meters import battery, hwmon  # type: ignore[import-not-found]
    from joulemap_agent.onboard.files import Files  # type: ignore[import-not-found]

    def draw(current_ma: int, duration_s: float) -> None:
        bus.write(BATTERY, 0x0A, 0x10000 - current_ma)
        time.sleep(duration_s)

    files = Files()
    found = [*battery.find(files), *hwmon.find(files)]
    listed = [
        [item.info.name, item.info.channel, item.info.kind]
        if hasattr(item, "info")
        else [item.name, item.channel, item.reason]
        for item in found
    ]
    readings: dict[str, list[float]] = {}
    for meter in found:
        if not hasattr(meter, "info") or meter.info.kind != "sampler":
            continue
        if hasattr(meter, "calibrate"):
            meter.calibrate(
                lambda duration_s: draw(1000, duration_s),
                lambda duration_s: draw(500, duration_s),
                stretch_s=2.0,
                slice_s=0.1,
            )
        readings[meter.info.channel] = []
        for current_ma in (500, 1000):
            draw(current_ma, 0.1)
            readings[meter.info.channel].append(meter.read())
        meter.close()
    return {"listed": listed, "readings_w": readings}


if __name__ == "__main__":
    main()
