"""NVIDIA's Jetson boards by their INA3221 sensors: which rail is the total, board by board.

A board's rails are not a list to be added up: on some one rail already is the total, on some a rail
supplies another one. The table says, per board, what the total is; a board that is not in the table
gets no total.

Sensors appear as hwmon chips with `in1_label` (JetPack 5 and later) or as IIO devices with
`rail_name_0` (JetPack 4), below `/sys/bus/i2c/drivers` and in the kernel's classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..onboard.energy.meter import SAMPLER, Meter, MeterInfo, Missing
from ..onboard.files import Files
from .hwmon import Rail, RailMeter, domain, hwmon_rails, iio_rails, open_rail
from .hwmon import rails as all_rails
from .readings import channel_name

_CARRIER = "carrier board, disks, USB, fan, losses of the supply"


@dataclass(frozen=True)
class Board:
    """What is known about a board.

    Args:
        name: Its own.
        marks: Parts of its device tree's model or compatible text, in small letters.
        total: Rails whose sum is the total; one of the names in each entry is there.
        unmeasured: What the total leaves out, in words.
        never: Rails that must not be added, with the reason.
    """

    name: str
    marks: tuple[str, ...]
    total: tuple[tuple[str, ...], ...]
    unmeasured: str
    never: str = ""


# Before a mark comes every longer one that contains it.
BOARDS = (
    Board(
        "Jetson AGX Orin",
        ("agx orin", "nvidia,p3701"),
        (("VDD_GPU_SOC",), ("VDD_CPU_CV",), ("VDDQ_VDD2_1V8AO",)),
        f"{_CARRIER}, and what else hangs on VIN_SYS_5V0",
        "VIN_SYS_5V0 supplies VDDQ_VDD2_1V8AO and the carrier board: never added, as in the kernel's sum.",
    ),
    Board(
        "Jetson Orin NX or Orin Nano",
        ("orin nx", "orin nano", "nvidia,p3767"),
        (("VDD_IN",),),
        _CARRIER,
        "VDD_CPU_GPU_CV and VDD_SOC are in VDD_IN.",
    ),
    Board(
        "Jetson Xavier NX",
        ("xavier nx", "nvidia,p3668"),
        (("VDD_IN", "5V_IN"),),
        _CARRIER,
        "VDD_CPU_GPU_CV and VDD_SOC are in VDD_IN.",
    ),
    Board(
        "Jetson AGX Xavier",
        ("jetson-agx", "agx xavier", "nvidia,p2888", "nvidia,galen"),
        (("GPU",), ("CPU",), ("SOC",), ("CV",), ("VDDRQ",), ("SYS5V",)),
        _CARRIER,
        "The six rails lie side by side; no rail is their total.",
    ),
    Board(
        "Jetson TX2 NX",
        ("tx2 nx", "nvidia,p3636", "lanai"),
        (("VDD_IN",),),
        _CARRIER,
        "VDD_CPU_GPU and VDD_SOC are in VDD_IN.",
    ),
    Board(
        "Jetson TX2",
        ("quill", "tx2", "nvidia,p3310", "nvidia,p3489"),
        (("VDD_IN",),),
        f"{_CARRIER} (VDD_MUX beside it measures the carrier board)",
        "VDD_SYS_GPU, VDD_SYS_CPU, VDD_SYS_SOC and VDD_SYS_DDR are in VDD_IN.",
    ),
    Board(
        "Jetson TX1",
        ("jetson-tx1", "jetson tx1", "nvidia,p2180"),
        (("VDD_IN",),),
        f"{_CARRIER} (VDD_MUX beside it measures the carrier board)",
        "VDD_GPU and VDD_CPU are in VDD_IN.",
    ),
    Board(
        "Jetson Nano",
        ("jetson nano", "nvidia,p3448", "nvidia,p3450"),
        (("POM_5V_IN", "VDD_IN"),),
        _CARRIER,
        "POM_5V_GPU and POM_5V_CPU are in POM_5V_IN.",
    ),
)


class SumMeter:
    """The sum of several rails, read one after the other.

    Args:
        info: What is known about it.
        meters: The rails.
    """

    def __init__(self, info: MeterInfo, meters: Sequence[RailMeter]) -> None:
        self.info = info
        self._meters = tuple(meters)

    def read(self) -> float:
        """Return watts."""
        return sum(meter.read() for meter in self._meters)

    def close(self) -> None:
        """Close the rails."""
        for meter in self._meters:
            meter.close()


def find(files: Files) -> list[Meter | Missing]:
    """Return the total first, then every rail by its name."""
    marks = _marks(files)
    if not any(mark in marks for mark in ("nvidia", "jetson", "quill")):
        return []
    board = next((board for board in BOARDS if any(mark in marks for mark in board.marks)), None)
    by_label = _rails(files)
    if not by_label:
        reason = "no INA3221 in /sys/bus/i2c/drivers and /sys/class/hwmon: this board has no sensor"
        return [Missing("jetson", "", reason, "use an external meter; a Nano 2GB has none, either")]
    found: list[Meter | Missing] = []
    opened = {
        label: open_rail(
            files, rail, "jetson", label, domain(rail), "what this rail does not supply"
        )
        for label, rail in by_label.items()
    }
    for meter in opened.values():
        if not isinstance(meter, Missing):
            meter.info = replace(meter.info, is_partial=True)
    if board is None:
        reason = f"this board is not in the table of boards ({marks[:60]}); no rail is its total"
        remedy = f"name a rail: --meter jetson:{next(iter(by_label))}; known: {', '.join(by_label)}"
        return [Missing("jetson", "total", reason, remedy), *opened.values()]
    chosen = [next((name for name in names if name in opened), None) for names in board.total]
    absent = [names[0] for names, name in zip(board.total, chosen) if name is None]
    labels = [name for name in chosen if name is not None]
    if absent:
        reason = f"{board.name}: no sensor shows {', '.join(absent)}, a part of the total"
        found.append(Missing("jetson", "total", reason, f"known rails: {', '.join(by_label)}"))
    elif len(labels) == 1:
        total = opened.pop(labels[0])
        if not isinstance(total, Missing):
            what = f"{board.name}: the whole module ({labels[0]})"
            notes = (board.never, *total.info.notes)
            total.info = replace(
                total.info,
                domain=what,
                unmeasured=board.unmeasured,
                notes=notes,
                is_partial=False,
            )
        found.append(total)
    else:
        found.append(_total(files, board, [by_label[label] for label in labels]))
    return [*found, *opened.values()]


def _total(files: Files, board: Board, parts: Sequence[Rail]) -> SumMeter | Missing:
    """Return the meter of a sum; it opens the rails again, so that closing one leaves the others."""
    meters: list[RailMeter] = []
    for rail in parts:
        meter = open_rail(files, rail, "jetson", "total", domain(rail))
        if isinstance(meter, Missing):
            for other in meters:
                other.close()
            return meter
        meters.append(meter)
    infos = [meter.info for meter in meters]
    steps = [info.resolution for info in infos if info.resolution is not None]
    updates = [info.update_period_s for info in infos if info.update_period_s is not None]
    names = " + ".join(channel_name(rail.label, "?") for rail in parts)
    info = MeterInfo(
        name="jetson",
        channel="total",
        kind=SAMPLER,
        domain=f"{board.name}: the whole module ({names})",
        unmeasured=board.unmeasured,
        rail="+".join(info.rail for info in infos),
        resolution=sum(steps) if len(steps) == len(infos) else None,
        update_period_s=max(updates, default=None),
        averaging_s=max(info.averaging_s for info in infos),
        max_power_w=sum(info.max_power_w for info in infos),
        read_s=max(info.read_s for info in infos),
        notes=(board.never, *dict.fromkeys(note for info in infos for note in info.notes)),
    )
    return SumMeter(info, meters)


def _marks(files: Files) -> str:
    """Return the device tree's model and compatible texts, in small letters."""
    texts = [
        files.text(f"{folder}/{name}") or ""
        for folder in ("proc/device-tree", "sys/firmware/devicetree/base")
        for name in ("model", "compatible")
    ]
    return " ".join(" ".join(texts).replace("\0", " ").lower().split())


def _rails(files: Files) -> dict[str, Rail]:
    """Return the sensors' rails by label, each once, whichever way leads to them."""
    found: list[Rail] = []
    for driver in ("ina3221", "ina3221x"):
        folder = f"sys/bus/i2c/drivers/{driver}"
        for chip in files.list(folder):
            if "-" not in chip:
                continue
            for name in files.list(f"{folder}/{chip}"):
                if name.startswith("iio:device"):
                    found += iio_rails(files, f"{folder}/{chip}/{name}", "ina3221")
            for name in files.list(f"{folder}/{chip}/hwmon"):
                found += hwmon_rails(files, f"{folder}/{chip}/hwmon/{name}", "ina3221")
    found += [rail for rail in all_rails(files) if rail.chip.startswith("ina3221")]
    by_label: dict[str, Rail] = {}
    for rail in found:
        label = channel_name(rail.label, "")
        # A channel that is not connected is labelled so.
        if label and label not in by_label and label.upper() != "NC":
            by_label[label] = rail
    return by_label
