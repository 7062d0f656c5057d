"""AMD's graphics cards by the files of their driver: an energy counter if there is one, else power."""

from __future__ import annotations

from dataclasses import replace

from ..onboard.energy.meter import COUNTER, SAMPLER, Meter, Missing
from ..onboard.files import Files
from .hwmon import Rail, open_rail
from .readings import channel_name, known_number

_HWMON = "sys/class/hwmon"
_UNMEASURED = "processor, memory, disks, losses of the supply"
# The firmware's average; the driver does not say over how long.
_AVERAGING_S = 1.0
# Each reading asks the card's firmware.
_READ_S = 0.02
_PEAK_FACTOR = 2.0
_SOURCES = (
    ("energy1_input", COUNTER, 0.0, "Energy as the driver counts it."),
    ("power1_input", SAMPLER, 0.0, "Power of the moment, as the firmware states it."),
    ("power1_average", SAMPLER, _AVERAGING_S, "The firmware's average, over an unstated time."),
)


def find(files: Files) -> list[Meter | Missing]:
    """Return each card's counter, then its power; the rail of both is the card."""
    found: list[Meter | Missing] = []
    folders = [f"{_HWMON}/{name}" for name in files.list(_HWMON)]
    cards = [folder for folder in folders if files.text(f"{folder}/name") == "amdgpu"]
    for index, folder in enumerate(cards):
        names = set(files.list(folder))
        kinds: set[str] = set()
        refused: list[Missing] = []
        for file, kind, averaging_s, note in _SOURCES:
            if file not in names or kind in kinds:
                continue
            channel = f"gpu{index}" if not kinds else f"gpu{index}-power"
            meter = _open(files, folder, file, kind, channel, averaging_s, note)
            if isinstance(meter, Missing):
                # A file may be there for what the card does not tell; then the next one does.
                refused.append(meter)
                continue
            kinds.add(kind)
            found.append(meter)
        if not kinds:
            reason = (
                f"/{folder} has neither power1_average nor power1_input: this card does not tell"
            )
            silent = Missing("amdgpu", f"gpu{index}", reason, "use an external meter")
            found += refused[:1] or [silent]
    return found


def _open(
    files: Files, folder: str, file: str, kind: str, channel: str, averaging_s: float, note: str
) -> Meter | Missing:
    # A processor with graphics inside says which power it tells: of the socket (PPT) or of the chip.
    label = files.text(f"{folder}/power1_label") or ""
    what = "graphics card as its firmware tells it"
    if label:
        what += f" ({channel_name(label, 'no label')})"
    rail = Rail(folder, "amdgpu", label, "1", (file,), 1e-6, kind)
    meter = open_rail(files, rail, "amdgpu", channel, what, _UNMEASURED)
    if isinstance(meter, Missing):
        return meter
    limit_uw = known_number(files, f"{folder}/power1_cap_max")
    meter.info = replace(
        meter.info,
        averaging_s=averaging_s or meter.info.averaging_s,
        max_power_w=limit_uw * 1e-6 * _PEAK_FACTOR if limit_uw else meter.info.max_power_w,
        read_s=max(_READ_S, meter.info.read_s),
        is_partial=True,
        notes=(note, "In a laptop, reading wakes a card that sleeps.", *meter.info.notes),
    )
    return meter
