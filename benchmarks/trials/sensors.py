"""Machines drawn at random, as trees of files whose right answers are known.

Thermal zones in mixed units among others that mislead; power sensors of cards, disks and boards;
packages whose counters are copies; batteries whose sign, unit and chargers have to be found; devices
that lose cores, memory and machine ids, or are copied; processors of several kinds of cores.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from joulemap.datasets.device_identity import is_same_device
from joulemap.device_agents.meters.battery import BatteryMeter
from joulemap.device_agents.onboard.energy.meter import Meter, MeterError, Missing
from joulemap.device_agents.onboard.energy.meter_choice import choose, find_meters, find_told
from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.onboard.machine.fingerprint import fingerprint
from joulemap.device_agents.onboard.machine.host_state import HostState
from joulemap.device_agents.onboard.machine.processor import clusters
from trials import Outcome, Trial

CPUS = "sys/devices/system/cpu"
HWMON = "sys/class/hwmon"
POWERCAP = "sys/class/powercap"
SUPPLY = "sys/class/power_supply"
MODULES = {name: name for name in ("rapl", "hwmon", "battery")}
# Families of zones by one driver: the processor's, others of its chip, and what is neither.
PROCESSORS = ("tsens_tz_sensor", "cpu-0-{}-usr", "cpu{}-thermal", "cluster{}", "bigcore{}-thermal")
CHIPS = ("gpuss-{}-usr", "gpu{}-thermal", "npu{}-thermal", "ddr{}-usr")
OTHERS = (
    ("battery", 15, 45),
    ("pm8998_tz", 30, 120),
    ("PMIC-Die", 100, 100),
    ("modem{}", 30, 90),
    ("wlan{}-usr", 30, 90),
    ("skin-therm", 25, 50),
    ("charger{}", 30, 110),
    ("nvme{}", 30, 84),
    ("iwlwifi_{}", 30, 90),
    ("xo-therm", 25, 60),
)
OFF = ("0", "-274000", "-40000", "127000", "125000", "200000", "2147483647", "", "nan")


def tree(folder: Path, files: Mapping[str, object]) -> Path:
    """Write the files below the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return folder


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder that is removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix="sensors-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def attempts(seed: int, num: int, attempt: Callable[[random.Random, Path], str | None]) -> Outcome:
    """Return what so many attempts found, each in a folder of its own."""
    draw = random.Random(f"sensors/{seed}")  # noqa: S311 - drawn again by the same seed
    failures = []
    for number in range(num):
        with folder() as path:
            said = attempt(draw, path)
        if said is not None:
            failures.append(f"seed {seed}, try {number}: {said}")
    return Outcome(num, tuple(failures))


# -- temperatures ----------------------------------------------------------------------------------


def temperature(draw: random.Random, path: Path) -> str | None:
    """Draw a device's zones; say what is wrong with its temperature."""
    units: dict[str, int] = {}
    zones: list[tuple[str, str, list[str]]] = []
    truth: list[float] = []
    for family in draw.sample(PROCESSORS, draw.randint(1, 2)) + draw.sample(
        CHIPS, draw.randint(0, 2)
    ):
        steps = units.setdefault(family, draw.choice((1000, 1000, 1000, 10, 1)))
        for number in range(draw.randint(2, 6)):
            value_c = draw.uniform(18, 94)
            trips = [str(round(draw.uniform(85, 120) * steps))] if draw.random() < 0.3 else []
            zones.append((family.format(number), str(round(value_c * steps)), trips))
            truth.append(round(value_c * steps) / steps)
        if steps == 1000 and draw.random() < 0.5:
            zones.append((family.format(9), draw.choice(OFF), []))
    for name, low, high in draw.sample(OTHERS, draw.randint(0, 6)):
        steps = draw.choice((1000, 1000, 10, 1))
        zones.append(
            (name.format(draw.randint(0, 3)), str(round(draw.uniform(low, high) * steps)), [])
        )
    if draw.random() < 0.3:
        zones.append(("soc", str(draw.randint(1, 100)), []))
    if draw.random() < 0.3:
        zones.append(("pm8150b-vbat-lvl0", str(draw.randint(3300, 4400)), []))
    draw.shuffle(zones)
    for number, (name, raw, trips) in enumerate(zones):
        zone = f"sys/class/thermal/thermal_zone{number}"
        tree(path, {f"{zone}/type": name, f"{zone}/temp": raw})
        tree(path, {f"{zone}/trip_point_{n}_temp": trip for n, trip in enumerate(trips)})
    found = HostState(str(path)).hottest_c()
    if found is None or abs(found - max(truth)) > 1e-6:
        return f"{found} instead of {max(truth)} by {zones}"
    return None


# -- power sensors ---------------------------------------------------------------------------------

CARDS = (
    "wormhole",
    "habanalabs",
    "nvme",
    "mlx5",
    "spd5118",
    "tps53679",
    "i915",
    "xe",
    "qaic",
    "pmc",
)
WHOLE = (
    ("power_meter", ""),
    ("macsmc_hwmon", "Total System Power"),
    ("corsairpsu", "power total"),
    ("ibmpowernv", "System"),
    ("ina226", ""),
    ("ina260", ""),
    ("isl28022", ""),
)
RAILS = ("3.8 V Rail Power", "Heatpipe Power", "AC Input Power")


def supply(draw: random.Random, path: Path) -> str | None:
    """Draw a machine's power sensors; say what is wrong with the meter that `auto` takes."""
    chips: list[tuple[str, list[tuple[str, int]]]] = []
    chips += [
        (chip, [("", draw.randint(1, 300_000_000)) for _ in range(draw.randint(1, 2))])
        for chip in draw.sample(CARDS, draw.randint(0, 4))
    ]
    chips += [
        (f"sfp_eth{number}", [("TX_power", 563), ("RX_power", 412)])
        for number in range(draw.randint(0, 3))
    ]
    watts = None
    if draw.random() < 0.6:
        chip, label = draw.choice(WHOLE)
        watts = draw.randint(2_000_000, 90_000_000)
        sensors = [(label, watts)]
        if chip == "macsmc_hwmon":
            sensors += [(rail, draw.randint(0, 9_000_000)) for rail in RAILS]
        chips.append((chip, sensors))
    draw.shuffle(chips)
    for number, (chip, sensors) in enumerate(chips):
        place = f"{HWMON}/hwmon{number}"
        tree(path, {f"{place}/name": chip})
        for count, (label, power_uw) in enumerate(sensors, 1):
            tree(path, {f"{place}/power{count}_input": power_uw})
            if label:
                tree(path, {f"{place}/power{count}_label": label})
    found = find_meters(MODULES, Files(str(path)))
    meters, why = choose("auto", found)
    read = [round(meter.read() * 1e6) for meter in meters]
    _close(found)
    expected = [] if watts is None else [watts]
    return None if read == expected else f"{read} instead of {expected} of {chips}: {why[:200]}"


# -- counters of packages --------------------------------------------------------------------------


def packages(draw: random.Random, path: Path) -> str | None:
    """Draw a processor's energy counters; say what is wrong with their sum."""
    range_uj = draw.choice((262_143_328_850, 65_532_610_987))
    num_packages, num_dies = draw.choice(((1, 1), (2, 1), (1, 2), (1, 4), (2, 2)))
    is_mirrored = num_dies > 1 and draw.random() < 0.7
    number, total = 0, 0
    for package in range(num_packages):
        own = draw.randint(10**8, range_uj - 10**9)
        for die in range(num_dies):
            if is_mirrored and die:
                energy = own + draw.choice((0, 0, -68_000, 68_000, -300_000))
            else:
                energy = own if not die else draw.randint(10**8, range_uj - 10**9)
                total += energy
            name = f"package-{package}" + (f"-die-{die}" if num_dies > 1 else "")
            zone = f"{POWERCAP}/intel-rapl:{number}"
            shown = {zone: (name, energy)}
            if draw.random() < 0.5:
                shown[f"{zone}:0"] = ("core", energy // 3)
            if not (is_mirrored and die) and draw.random() < 0.4:
                memory = draw.randint(10**7, 10**9)
                shown[f"{zone}:1"] = ("dram", memory)
                total += memory
            for place, (text, energy_uj) in shown.items():
                tree(path, {f"{place}/name": text, f"{place}/energy_uj": energy_uj})
                tree(path, {f"{place}/max_energy_range_uj": range_uj})
            number += 1
    if draw.random() < 0.4:
        zone = f"{POWERCAP}/intel-rapl:{number}"
        tree(path, {f"{zone}/name": "psys", f"{zone}/energy_uj": draw.randint(0, 10**9)})
    found = find_meters({"rapl": "rapl"}, Files(str(path)))
    (meter,), _ = choose("auto", found)
    joules = meter.read()
    _close(found)
    expected = total % range_uj * 1e-6
    is_right = abs(joules - expected) < 1e-3
    return None if is_right else f"{joules} J instead of {expected} J, {num_packages}x{num_dies}"


# -- batteries -------------------------------------------------------------------------------------


class Phone:
    """A phone in virtual time whose gauge writes what it is made to write."""

    def __init__(self, draw: random.Random, path: Path) -> None:
        self.path, self.draw = path, draw
        self.sign, self.step_ua = draw.choice((1, -1)), draw.choice((1.0, 1.0, 1e3))
        self.idle_a, self.load_a = draw.uniform(0.08, 0.6), draw.uniform(0.9, 2.5)
        self.charge_step_uah = draw.choice((100.0, 1000.0, 40_000.0))
        self.now_s, self.charge_uah = 0.0, 3e6 + draw.uniform(0, 1e6)
        tree(
            path,
            {
                f"{SUPPLY}/battery/type": "Battery",
                f"{SUPPLY}/battery/status": "Discharging",
                f"{SUPPLY}/battery/voltage_now": 3_850_000,
                f"{SUPPLY}/battery/charge_full_design": 4_500_000,
                f"{SUPPLY}/ac/type": "Mains",
                f"{SUPPLY}/ac/online": 0,
                f"{SUPPLY}/usb/type": "USB",
                f"{SUPPLY}/usb/online": 0,
            },
        )
        if draw.random() < 0.3:
            port = f"{SUPPLY}/ucsi-source-psy-USBC000:001"
            tree(path, {f"{port}/type": "USB", f"{port}/online": 1})
        self.spend(1.0, self.idle_a)

    def spend(self, seconds: float, current_a: float) -> None:
        """Let time pass at a current; the files show it."""
        self.now_s += seconds
        self.charge_uah -= current_a * seconds / 3600 * 1e6
        shown_a = current_a * (1 + 0.01 * self.draw.gauss(0, 1))
        charge = round(self.charge_uah / self.charge_step_uah) * self.charge_step_uah
        raw = round(self.sign * shown_a * 1e6 / self.step_ua)
        battery = f"{SUPPLY}/battery"
        tree(self.path, {f"{battery}/current_now": raw, f"{battery}/charge_counter": round(charge)})


def battery(draw: random.Random, path: Path) -> str | None:
    """Draw a phone, told or not told of; say where its watts are wrong, not where it is refused."""
    phone = Phone(draw, path)
    files = Files(str(path))
    wrong_unit = draw.random() < 0.2
    unit = "mA" if (phone.step_ua == 1e3) is not wrong_unit else "uA"
    told = draw.choice(({}, {"current_unit": unit, "sign": "+" if phone.sign > 0 else "-"}))
    found = find_meters({"battery": "battery"}, files)
    if told:
        found = find_told(found, {"battery": "battery"}, files, {"battery": told})
    meter = found[0]
    if not isinstance(meter, BatteryMeter):
        return f"no gauge: {meter}"
    try:
        meter.calibrate(
            lambda s: phone.spend(s, phone.load_a),
            lambda s: phone.spend(s, phone.idle_a),
            clock=lambda: phone.now_s,
        )
        phone.spend(1.0, phone.load_a)
        watts = meter.read()
    except MeterError as error:
        # A unit that is told rightly is enough; what nobody can know may be refused.
        if told and not wrong_unit:
            return f"refused though told {told}: {error}"
        return None
    finally:
        _close(found)
    is_right = abs(watts / (phone.load_a * 3.85) - 1) < 0.1
    return None if is_right else f"{watts} W instead of {phone.load_a * 3.85} W, told {told}"


# -- names of devices ------------------------------------------------------------------------------


def machine_id(draw: random.Random) -> str:
    """Return a machine id."""
    return f"{draw.getrandbits(128):032x}"


def identity(draw: random.Random, path: Path) -> str | None:
    """Draw a device and what happens to it; say where it is taken for another, or another for it."""
    kind = draw.choice(("board", "pc", "diskless"))
    count = draw.choice((4, 6, 8))
    root = "21 1 179:2 / / rw - ext4 /dev/root rw"
    files: dict[str, object] = {
        "etc/machine-id": machine_id(draw),
        "proc/self/mountinfo": root if kind != "diskless" else "21 1 0:1 / / rw - rootfs none rw",
        "proc/cpuinfo": _cpuinfo(count),
        f"{CPUS}/present": f"0-{count - 1}",
        "proc/meminfo": f"MemTotal: {round(draw.uniform(3.7, 3.99) * 2**20)} kB",
    }
    if kind == "board":
        files["proc/device-tree/serial-number"] = f"1{draw.getrandbits(60):015x}"
    else:
        files["sys/class/dmi/id/product_name"] = draw.choice(("21HD", "NUC11"))
        _card(draw, path)
    first = _of(tree(path, files), count)
    for _ in range(draw.randint(1, 3)):
        change = draw.choice(("cores", "memory", "restart", "update"))
        if change == "cores":
            online = draw.randint(1, count)
            tree(path, {"proc/cpuinfo": _cpuinfo(online)})
            count = online
        elif change == "memory":
            size_kb = round(draw.uniform(3.6, 3.99) * 2**20)
            tree(path, {"proc/meminfo": f"MemTotal: {size_kb} kB"})
        elif change == "restart" and kind != "pc":
            tree(path, {"etc/machine-id": machine_id(draw)})
        else:
            tree(path, {"proc/device-tree/model": f"Board, firmware {draw.randint(1, 99)}"})
        now = _of(path, count)
        if now["device_id"] != first["device_id"] or not is_same_device(first, now):
            return f"a {kind} has another id after {change}"
    other = path / "copy"
    shutil.copytree(path, other, symlinks=True, ignore=shutil.ignore_patterns("copy", "net"))
    if kind == "board":
        tree(other, {"proc/device-tree/serial-number": f"1{draw.getrandbits(60):015x}"})
    else:
        _card(draw, other)
    if is_same_device(first, _of(other, count)):
        return f"the copy of a {kind} is taken for it"
    return None


def _of(path: Path, count: int) -> dict[str, Any]:
    with mock.patch.object(os, "cpu_count", return_value=count):
        return fingerprint({}, str(path))


def _cpuinfo(count: int) -> str:
    core = "CPU implementer : 0x41\nCPU part : 0xd07"
    return "\n\n".join(f"processor : {cpu}\n{core}" for cpu in range(count))


def _card(draw: random.Random, path: Path) -> None:
    place = path / "sys/devices/pci0000:00/0000:00:1f.6"
    card = place / "net/eth0"
    address = ":".join(f"{draw.randint(0, 255):02x}" for _ in range(4))
    tree(card, {"address": f"54:e1:{address}", "addr_assign_type": 0, "type": 1})
    (path / "sys/class/net").mkdir(parents=True)
    (path / "sys/class/net/eth0").symlink_to(card)
    (card / "device").symlink_to(place)


# -- kinds of cores --------------------------------------------------------------------------------


def cores(draw: random.Random, path: Path) -> str | None:
    """Draw an x86 processor; say what is wrong with its groups of CPUs."""
    maker = draw.choice(("GenuineIntel", "AuthenticAMD"))
    sizes = [draw.randint(1, 32)]
    top_mhz = draw.uniform(4000, 5800)
    spread = 0.04 if maker == "GenuineIntel" else 0.12
    speeds = [[top_mhz * (1 - draw.uniform(0, spread)) for _ in range(sizes[0])]]
    counters = {}
    if draw.random() < 0.5:
        sizes.append(draw.randint(1, 16))
        # Slower than the slowest of the others by more than they differ.
        speeds.append([min(speeds[0]) * draw.uniform(0.6, 0.78)] * sizes[1])
        if maker == "GenuineIntel" and draw.random() < 0.7:
            counters = {"cpu_core": (0, sizes[0]), "cpu_atom": (sizes[0], sum(sizes))}
    infos = []
    for cpu, mhz in enumerate(speed for group in speeds for speed in group):
        policy = f"{CPUS}/cpufreq/policy{cpu}"
        tree(path, {f"{policy}/scaling_governor": "powersave"})
        tree(path, {f"{policy}/cpuinfo_max_freq": round(mhz * 1000)})
        (path / f"{CPUS}/cpu{cpu}").mkdir(parents=True)
        (path / f"{CPUS}/cpu{cpu}/cpufreq").symlink_to(f"../cpufreq/policy{cpu}")
        infos.append(f"processor : {cpu}\nvendor_id : {maker}\nmodel name : {maker[-5:]} CPU")
    if maker == "GenuineIntel":
        infos = [text.replace("model name : ", "model name : Intel ") for text in infos]
    tree(path, {"proc/cpuinfo": "\n\n".join(infos), f"{CPUS}/online": f"0-{sum(sizes) - 1}"})
    for name, (start, end) in counters.items():
        tree(path, {f"sys/devices/{name}/cpus": f"{start}-{end - 1}"})
    found = [len(group["cpus"]) for group in clusters(Files(str(path)))]
    return None if found == sizes else f"groups of {found} instead of {sizes}, {maker}"


def _close(found: list[Meter | Missing]) -> None:
    for item in found:
        if not isinstance(item, Missing):
            item.close()


TRIALS = (
    Trial(
        "sensor-temperatures",
        "the processor's temperature is found in any unit, among zones that mislead",
        5,
        lambda seed: attempts(seed, 250, temperature),
    ),
    Trial(
        "sensor-supplies",
        "auto takes the machine's power sensor and no other one",
        5,
        lambda seed: attempts(seed, 400, supply),
    ),
    Trial(
        "sensor-packages",
        "each package's energy counts once, whatever is shown twice",
        5,
        lambda seed: attempts(seed, 120, packages),
    ),
    Trial(
        "sensor-batteries",
        "a battery's watts are right, or it is refused",
        5,
        lambda seed: attempts(seed, 30, battery),
    ),
    Trial(
        "sensor-identities",
        "a device keeps its id, and a copy of it is another one",
        5,
        lambda seed: attempts(seed, 150, identity),
    ),
    Trial(
        "sensor-cores",
        "CPUs of one kind are one group",
        5,
        lambda seed: attempts(seed, 100, cores),
    ),
)
