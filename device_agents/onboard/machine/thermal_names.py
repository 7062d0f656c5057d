"""Where a thermal zone's sensor sits, by the name that its maker gave it.

Only what sits on the processor's chip tells whether the processor is hot. Phones have dozens of zones
beside it: battery, charger, modem, the glass; and some that hold no temperature at all, such as the
battery's charge in percent or its voltage.
"""

from __future__ import annotations

import re
from collections.abc import Collection

# The processor's cores, or its chip as a whole.
PROCESSOR = "processor"
# Other parts of that chip.
CHIP = "chip"
# Wherever the firmware likes.
FIRMWARE = "firmware"
UNKNOWN = "unknown"
# Battery, radio, case, disks.
ELSEWHERE = "elsewhere"
# Percent, volts, amperes, or a table of the firmware's.
NO_TEMPERATURE = "no temperature"

_NO_TEMPERATURES = re.compile(r"(^|[^a-z])(vbat|ibat|vph|bcl|socd|int3400)|^soc-step$")
_CHARGE = "soc"
# Whole words; a number may follow.
_ELSEWHERE = re.compile(
    r"(amb|ambient|amp|ath|audio|backlight|bat|batt|battery|bms|board|brcmfmac|cam|camera|case|cellular"
    r"|charge|charger|chg|conn|cover|disk|display|drivetemp|emmc|fan|flash|glass|gnss|hdd|iwlwifi|lcd"
    r"|led|lte|mdm|mdmss|mmw|modem|nrmodem|nvme|oled|pa|panel|pcb|pch|pmic|pmi|quiet|rf|sdr|sen|shell"
    r"|sim|skin|speaker|spk|ssd|tboard|tcxo|touch|tskin|tskn|ufs|usb|vbus|wcn|wifi|wireless|wlan|wmt"
    r"|xo|xtal)[0-9]*|(batt|charg|modem|pmic|skin|wifi|wlan).*"
)
# Power chips: pm8998_tz, pmi632-tz, pm8150b-tz.
_POWER_CHIP = re.compile(r"(^|[^a-z])pm[a-z]{0,3}[0-9]")
_PROCESSOR = re.compile(
    r"(ap|apc|apcss|apps|armada|bcm|big|core|cores|exynos|gold|imx|kryo|little|mid|middle|pkg|prime"
    r"|silver|tdiode|tj)[0-9]*|[a-z]?cpu.*|(bigcore|cls|cluster|littlecore|midcore|package|soc|tsens).*"
)
# The processor as ACPI's thermal framework calls it, x86_pkg_temp, s5p-tmu.
_PROCESSOR_NAMES = re.compile(r"b0d4$|x86_pkg_temp|s5p-tmu|mtkcpu")
_CHIP = re.compile(
    r"(ao|aoss|apu|aur|aux|center|cdsp|cmpss|cv|dla|dram|dsp|g3d|hvx|isp|llc|lpass|mali|mdla|mem|nsp"
    r"|nvdla|pll|q6|tpu|ve|vcodec|video|vpu)[0-9]*|(gpu|npu|ddr).*"
)


def place_of(name: str, all_names: Collection[str] = ()) -> str:
    """Return where a zone's sensor sits, one of the constants above.

    Args:
        name: The zone's type.
        all_names: Those of all zones of the device.
    """
    name = name.lower()
    # Qualcomm's and Google's kernels show the battery's state of charge so, others the chip.
    is_charge = name == _CHARGE and any(
        place_of(other) == PROCESSOR for other in all_names if other.lower() != _CHARGE
    )
    if is_charge or _NO_TEMPERATURES.search(name):
        return NO_TEMPERATURE
    if name.startswith("acpitz"):
        return FIRMWARE
    # MediaTek's: mtktscpu, mtktspmic. Its mtktsAP is a resistor on the board.
    name = "board" if name == "mtktsap" else re.sub(r"^mtkts", "", name)
    words = re.findall(r"[a-z0-9]+", name)
    if any(map(_ELSEWHERE.fullmatch, words)) or _POWER_CHIP.search(name):
        return ELSEWHERE
    if any(map(_PROCESSOR.fullmatch, words)) or _PROCESSOR_NAMES.search(name):
        return PROCESSOR
    return CHIP if any(map(_CHIP.fullmatch, words)) else UNKNOWN
