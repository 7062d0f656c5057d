"""Which files a simulated board's meters, sensors and processors appear as."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace

from .board_gauges import Charger, CounterGauge, SamplerGauge, last_update
from .board_model import Board, Rail
from .board_options import BoardOptions

Content = Callable[[], bytes]
FULL_FREQUENCY_KHZ = 2_400_000
# The memory's part of a board that has a counter for it.
MEMORY_SHARE = 0.15
SUPPLY_V = 5.0
BATTERY_V = 3.85
BATTERY_FULL_UAH = 4_000_000
BATTERY_START_UAH = 3_000_000
LAPTOP_V = 11.4
LAPTOP_START_UWH = 40_000_000
# Rails of a Jetson Orin NX: the first is the total of the module.
JETSON_RAILS = (
    Rail("VDD_IN"),
    Rail("VDD_CPU_GPU_CV", 0.3, 0.8),
    Rail("VDD_SOC", 0.25, 0.1),
)
# Together they are the whole board.
PHONE_RAILS = (
    (Rail("S4M_VDD_CPUCL0", 0.2, 0.15), "CPU-LITTLE"),
    (Rail("S3M_VDD_CPUCL1", 0.1, 0.25), "CPU-MID"),
    (Rail("S2M_VDD_CPUCL2", 0.1, 0.45), "CPU-BIG"),
    (Rail("S1M_VDD_MIF", 0.3, 0.1), "DDR"),
    (Rail("S5M_VDD_INT", 0.3, 0.05), "INFRA"),
)


def equipment_files(board: Board, options: BoardOptions, charger: Charger) -> dict[str, Content]:
    """Return path below the root to content for everything that the board has."""
    files = _machine(board, options)
    for name in options.equipment:
        if name in _PLAIN:
            files |= _PLAIN[name](board, options)
    if "battery" in options.equipment:
        files |= _battery(board, options, charger)
    if "laptop" in options.equipment:
        files |= _laptop(board, options, charger)
    return files


# -- processors, temperature -----------------------------------------------------------------------


def _machine(board: Board, options: BoardOptions) -> dict[str, Content]:
    cpus = os.cpu_count() or 1
    span = f"0-{cpus - 1}" if cpus > 1 else "0"
    folder = "sys/devices/system/cpu"
    jetson, phone = "ina3221" in options.equipment, "odpm" in options.equipment
    model = "NVIDIA Jetson Orin NX (simulated)" if jetson else "Simulated board"
    if phone:
        model = "Simulated phone"
    files: dict[str, Content] = {
        "sys/firmware/devicetree/base/model": _text(f"{model}\0"),
        "sys/class/thermal/thermal_zone0/type": _line("cpu-thermal"),
        "sys/class/thermal/thermal_zone0/temp": _live(
            lambda: (board.advance(), board.temperature_c * 1000)[1]
        ),
    }
    for name in ("possible", "present", "online"):
        files[f"{folder}/{name}"] = _line(span)
    files[f"{folder}/kernel_max"] = _line(str(cpus - 1))
    for cpu in range(cpus):
        own = f"{folder}/cpu{cpu}"
        for name, text in (
            ("topology/core_id", str(cpu)),
            ("topology/physical_package_id", "0"),
            ("topology/die_id", "0"),
            ("topology/thread_siblings_list", str(cpu)),
            ("topology/core_siblings_list", span),
            ("cpufreq/cpuinfo_max_freq", str(FULL_FREQUENCY_KHZ)),
            ("cpufreq/cpuinfo_min_freq", "600000"),
            ("cpufreq/scaling_max_freq", str(FULL_FREQUENCY_KHZ)),
            ("cpufreq/scaling_min_freq", "600000"),
            ("cpufreq/scaling_governor", "performance"),
        ):
            files[f"{own}/{name}"] = _line(text)
        files[f"{own}/cpufreq/scaling_cur_freq"] = _live(
            lambda: (board.advance(), board.frequency_share * FULL_FREQUENCY_KHZ)[1]
        )
    return files


# -- RAPL ------------------------------------------------------------------------------------------


def _zone(
    board: Board, options: BoardOptions, folder: str, name: str, rail: Rail
) -> dict[str, Content]:
    gauge = _counter(options, CounterGauge(rail))
    path = f"sys/class/powercap/{folder}"
    return {
        f"{path}/name": _line(name),
        f"{path}/enabled": _line("1"),
        f"{path}/energy_uj": _live(lambda: gauge.read_j(board) * 1e6),
        f"{path}/max_energy_range_uj": _line(str(round(gauge.range_j * 1e6))),
        f"{path}/constraint_0_name": _line("long_term"),
        f"{path}/constraint_0_max_power_uw": _line(str(round(1e6 * _most_w(options)))),
    }


def _most_w(options: BoardOptions) -> float:
    return max(28.0, 1.5 * (options.idle_w + options.active_w * (os.cpu_count() or 1)))


def _rapl(board: Board, options: BoardOptions) -> dict[str, Content]:
    share = 1.0 - MEMORY_SHARE if "dram" in options.equipment else 1.0
    package = Rail("package-0", share, share)
    cores = Rail("core", 0.2 * share, 0.9 * share)
    return {
        "sys/class/powercap/intel-rapl/enabled": _line("1"),
        **_zone(board, options, "intel-rapl:0", "package-0", package),
        **_zone(board, options, "intel-rapl:0:0", "core", cores),
    }


def _dram(board: Board, options: BoardOptions) -> dict[str, Content]:
    memory = Rail("dram", MEMORY_SHARE, MEMORY_SHARE)
    return _zone(board, options, "intel-rapl:0:1", "dram", memory)


def _psys(board: Board, options: BoardOptions) -> dict[str, Content]:
    return _zone(board, options, "intel-rapl:1", "psys", Rail("psys"))


# -- current sensors -------------------------------------------------------------------------------


def _ina219(board: Board, options: BoardOptions) -> dict[str, Content]:
    # 1 mA per step; the driver's power register has steps of 20 of these.
    gauge = _sampler(
        options,
        SamplerGauge(update_period_s=0.002, averaging_s=0.001, noise_sd=0.005, seed=1),
    )
    fine = replace(gauge, resolution_w=0.001 * SUPPLY_V)
    coarse = replace(gauge, resolution_w=0.020 * SUPPLY_V / 5.0)
    path = "sys/class/hwmon/hwmon0"
    return {
        f"{path}/name": _line("ina219"),
        f"{path}/update_interval": _line(_milliseconds(gauge)),
        f"{path}/shunt_resistor": _line("100000"),
        f"{path}/in0_input": _live(lambda: fine.read_w(board) / SUPPLY_V * 100),
        f"{path}/in1_input": _line(str(round(SUPPLY_V * 1e3))),
        f"{path}/curr1_input": _live(lambda: fine.read_w(board) / SUPPLY_V * 1e3),
        f"{path}/power1_input": _live(lambda: coarse.read_w(board) * 1e6),
    }


def _ina3221(board: Board, options: BoardOptions) -> dict[str, Content]:
    path = "sys/class/hwmon/hwmon1"
    first = _sampler(options, SamplerGauge(update_period_s=0.01, averaging_s=0.01, noise_sd=0.005))
    files = {
        f"{path}/name": _line("ina3221"),
        f"{path}/update_interval": _line(_milliseconds(first)),
        f"{path}/samples": _line("4"),
    }
    for number, rail in enumerate(JETSON_RAILS, 1):
        # 40 uV over 5 mOhm: 8 mA per step.
        gauge = replace(
            first, rail=rail, resolution_w=0.008 * SUPPLY_V, seed=options.seed * 64 + 2 + number
        )
        files |= {
            f"{path}/in{number}_label": _line(rail.name),
            f"{path}/in{number}_enable": _line("1"),
            f"{path}/in{number}_input": _line(str(round(SUPPLY_V * 1e3))),
            f"{path}/shunt{number}_resistor": _line("5000"),
            f"{path}/curr{number}_input": _watts(gauge, board, 1e3 / SUPPLY_V),
        }
    return files


# -- batteries -------------------------------------------------------------------------------------


def _battery(board: Board, options: BoardOptions, charger: Charger) -> dict[str, Content]:
    gauge = _sampler(
        options,
        SamplerGauge(
            update_period_s=0.1,
            averaging_s=0.5,
            noise_sd=0.05,
            resolution_w=0.001 * BATTERY_V,
            seed=8,
        ),
    )
    path = "sys/class/power_supply/battery"

    def charge_uah() -> float:
        _, time_s = last_update(gauge, board)
        drawn_j = board.energy_until(time_s) - charger.delivered_j()
        return BATTERY_START_UAH - drawn_j / BATTERY_V / 3600 * 1e6

    def current_ua() -> float:
        watts = gauge.read_w(board) - (charger.power_w if charger.is_plugged else 0.0)
        return -watts / BATTERY_V * 1e6

    return {
        f"{path}/type": _line("Battery"),
        f"{path}/scope": _line("System"),
        f"{path}/present": _line("1"),
        f"{path}/status": lambda: b"Charging\n" if charger.is_plugged else b"Discharging\n",
        f"{path}/voltage_now": _line(str(round(BATTERY_V * 1e6))),
        f"{path}/current_now": _live(current_ua),
        f"{path}/charge_counter": _live(charge_uah),
        f"{path}/charge_full": _line(str(BATTERY_FULL_UAH)),
        f"{path}/capacity": _live(lambda: 100 * charge_uah() / BATTERY_FULL_UAH),
        f"{path}/temp": _live(lambda: board.temperature_c * 10),
        "sys/class/power_supply/usb/type": _line("USB"),
        "sys/class/power_supply/usb/online": _live(lambda: float(charger.is_plugged)),
    }


def _laptop(board: Board, options: BoardOptions, charger: Charger) -> dict[str, Content]:
    gauge = _sampler(
        options,
        SamplerGauge(
            update_period_s=1.0, averaging_s=1.0, noise_sd=0.01, resolution_w=0.001, seed=9
        ),
    )
    path = "sys/class/power_supply/BAT0"

    def energy_uwh() -> float:
        _, time_s = last_update(gauge, board)
        drawn_j = board.energy_until(time_s) - charger.delivered_j()
        return 10_000 * round((LAPTOP_START_UWH - drawn_j / 3600 * 1e6) / 10_000)

    def power_uw() -> float:
        return abs(gauge.read_w(board) - (charger.power_w if charger.is_plugged else 0.0)) * 1e6

    return {
        f"{path}/type": _line("Battery"),
        f"{path}/present": _line("1"),
        f"{path}/status": lambda: b"Charging\n" if charger.is_plugged else b"Discharging\n",
        f"{path}/voltage_now": _line(str(round(LAPTOP_V * 1e6))),
        f"{path}/power_now": _live(power_uw),
        f"{path}/energy_now": _live(energy_uwh),
        f"{path}/energy_full": _line("50000000"),
        f"{path}/capacity": _live(lambda: energy_uwh() / 500_000),
        "sys/class/power_supply/AC/type": _line("Mains"),
        "sys/class/power_supply/AC/online": _live(lambda: float(charger.is_plugged)),
    }


# -- accumulated rails -----------------------------------------------------------------------------


def _odpm(board: Board, options: BoardOptions) -> dict[str, Content]:
    gauges = [
        _counter(
            options,
            CounterGauge(rail, update_period_s=0.125, resolution_j=1e-6, range_j=math.inf),
        )
        for rail, _ in PHONE_RAILS
    ]
    path = "sys/bus/iio/devices/iio:device0"

    def energy_value() -> bytes:
        _, time_s = last_update(gauges[0], board)
        stamp = round((time_s - board.start_s) * 1000) + 100_000
        lines = [f"t={stamp}"]
        lines += [
            f"CH{number}(T={stamp})[{gauge.rail.name}], {round(gauge.read_j(board) * 1e6)}"
            for number, gauge in enumerate(gauges)
        ]
        return ("\n".join(lines) + "\n").encode()

    rails = [f"CH{number}[{rail.name}]:{use}" for number, (rail, use) in enumerate(PHONE_RAILS)]
    return {
        f"{path}/name": _line("s2mpg10-odpm"),
        f"{path}/energy_value": energy_value,
        f"{path}/enabled_rails": _line("\n".join(rails)),
        f"{path}/available_rails": _line("\n".join(rails)),
        f"{path}/sampling_rate": _line(f"{1 / gauges[0].update_period_s:.6f}"),
    }


_PLAIN: Mapping[str, Callable[[Board, BoardOptions], dict[str, Content]]] = {
    "rapl": _rapl,
    "dram": _dram,
    "psys": _psys,
    "ina219": _ina219,
    "ina3221": _ina3221,
    "odpm": _odpm,
}


# -- parts -----------------------------------------------------------------------------------------


def _counter(options: BoardOptions, gauge: CounterGauge) -> CounterGauge:
    if options.update_s is not None:
        gauge = replace(gauge, update_period_s=options.update_s)
    if options.range_j is not None and math.isfinite(gauge.range_j):
        # Begins in the last fifth: the first wrap is not long in coming.
        gauge = replace(gauge, range_j=options.range_j, start_j=0.8 * options.range_j)
    return replace(gauge, seed=options.seed * 64 + gauge.seed)


def _sampler(options: BoardOptions, gauge: SamplerGauge) -> SamplerGauge:
    if options.update_s is not None:
        gauge = replace(gauge, update_period_s=options.update_s)
    if options.averaging_s is not None:
        gauge = replace(gauge, averaging_s=options.averaging_s)
    if options.noise is not None:
        gauge = replace(gauge, noise_sd=options.noise)
    return replace(gauge, seed=options.seed * 64 + gauge.seed)


def _watts(gauge: SamplerGauge, board: Board, factor: float) -> Content:
    return _live(lambda: gauge.read_w(board) * factor)


def _milliseconds(gauge: SamplerGauge) -> str:
    return str(max(1, round(gauge.update_period_s * 1e3)))


def _live(value: Callable[[], float]) -> Content:
    return lambda: b"%d\n" % round(value())


def _line(text: str) -> Content:
    return _text(text + "\n")


def _text(text: str) -> Content:
    content = text.encode()
    return lambda: content
