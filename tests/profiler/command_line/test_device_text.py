"""A device's description in words."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from joulemap.device_agents import StableDeviceError
from joulemap.device_agents.onboard.probe_answer import ProbeAnswer
from joulemap.device_agents.registry import METERS as METERS_KNOWN
from joulemap.profiler.campaign.requirements import require_runtime
from joulemap.profiler.command_line import console, device_text

PI: dict[str, Any] = {
    "device_id": "0123456789abcdef",
    "cpu_model": "Raspberry Pi 4 Model B Rev 1.4",
    "board": "Raspberry Pi 4 Model B Rev 1.4",
    "num_cpus": 4,
    "available_cpus": [0, 1, 2, 3],
    "clusters": [
        {
            "cpus": [0, 1, 2, 3],
            "core": "Cortex-A72",
            "capacity": 1024.0,
            "governor": "ondemand",
            "governors": ["ondemand", "performance"],
            "min_frequency_hz": 6e8,
            "max_frequency_hz": 1.8e9,
            "frequency_hz": 6e8,
        }
    ],
    "gpus": [],
    "memory_bytes": 4 << 30,
    "architecture": "aarch64",
    "os": "Debian GNU/Linux 12 (bookworm)",
    "os_release": {"ID": "debian", "VERSION_ID": "12"},
    "is_root": False,
    "kernel": "6.6.51+rpt-rpi-v8",
    "python": "3.11.2",
    "python_path": "/usr/bin/python3",
    "runtimes": {"onnxruntime": None},
    "thermal_zones": [{"type": "cpu-thermal", "temperature_c": 48.25}],
    "control": {
        "frequency_lock": {"is_permitted": False, "reason": "run the agent as root " * 9},
        "affinity": {"is_permitted": True, "reason": None},
    },
    "clocks": {
        "clocks": {
            "wall_s": {
                "offset_s": -3.25,
                "offset_uncertainty_s": 0.0004,
                "skew": 3e-5,
                "skew_uncertainty": 4e-4,
            }
        }
    },
}


METERS: dict[str, Any] = {
    "available": [
        {
            "name": "hwmon",
            "channel": "VDD_IN",
            "kind": "sampler",
            "domain": "the whole module",
            "update_period_s": None,
            "resolution": 0.004,
            "unmeasured": "the carrier board",
            "notes": [],
        }
    ],
    "missing": [
        {
            "name": "rapl",
            "channel": "package-0",
            "reason": "/sys/class/powercap/intel-rapl:0/energy_uj: permission denied",
            "remedy": "sudo chmod o+r /sys/class/powercap/intel-rapl:0/energy_uj",
        }
    ],
}


def test_a_board_fits_into_eighty_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.RESULTS, "width", 80)
    device_text.print_probe("ssh://pi@rpi4", PI, METERS, "Meters: none.")
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for expected in (
        "Cortex-A72, capacity 1024",
        "0.60 to 1.80 GHz",
        "48.2 deg C",
        "-3.2500 s +- 0.40 ms",
        "30 +- 400 us",
        "0-3",
        "4.0 GiB",
        "0.004 W",
        "does not see the carrier board",
        "chmod o+r",
    ):
        assert expected in text
    assert "Get onnxruntime with: sudo apt-get install -y python3-venv" in " ".join(text.split())


def test_a_meter_that_sees_a_part_only_says_so() -> None:
    part = {"name": "nvml", "channel": "gpu0", "unmeasured": "the host", "is_partial": True}
    (text,) = device_text.meter_sentences({"available": [part]})
    assert text == "nvml:gpu0: does not see the host. Taken by name only, never by --meter auto."


def test_a_missing_runtime_is_refused_with_the_line_that_installs_it() -> None:
    with pytest.raises(StableDeviceError, match=r"no onnxruntime for its Python /usr/bin/python3"):
        require_runtime(ProbeAnswer.from_dict(PI), "onnxruntime", "ssh://pi@rpi4")
    has = ProbeAnswer.from_dict({**PI, "runtimes": {"onnxruntime": "1"}})
    require_runtime(has, "onnxruntime", "x")
    require_runtime(ProbeAnswer("sim-1"), "onnxruntime", "sim:eyeriss")


def test_what_would_steer_a_terminal_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    answer = {"os": "\x1b]0;evil\x07" + "x" * 10_000, "clusters": [{"core": "\x1b[2J"}], "n": 1}
    device_text.print_probe("ssh://pi@rpi4", answer, {}, "no meter")
    shown = capsys.readouterr().out
    assert all(each.isprintable() or each == "\n" for each in shown)
    assert r"\x1b]0;evil\x07" in shown.replace("\n", "").replace(" ", "")
    assert len(shown) < 5000


def test_answers_of_other_shapes_are_left_out() -> None:
    strange = {
        "available": [3, {"name": 5, "notes": "x"}],
        "missing": {"name": "rapl"},
        "clusters": [3, {"cpus": ["a", 1], "max_frequency_hz": "fast", "capacity": []}],
        "thermal_zones": {"type": "x"},
        "control": {"frequency_lock": "yes"},
        "runtimes": [],
        "clocks": "late",
    }
    assert device_text.cluster_rows(strange) == [
        ["1", "not named", "not readable", "not readable", ""]
    ]
    assert device_text.zone_rows(strange) == []
    assert device_text.control_rows(strange) == []
    assert device_text.clock_rows(strange) == []
    assert device_text.meter_rows(strange) == [["5", "None", "None", "to be observed", "unknown"]]
    assert device_text.meter_sentences(strange) == []


def test_a_device_without_meters_says_what_meters_need(
    capsys: pytest.CaptureFixture[str],
) -> None:
    estimate = {"name": "estimated", "channel": "cpu-time", "kind": "estimate", "domain": "a guess"}
    device_text.print_probe("ssh://pi@rpi4", PI, {"available": [estimate]}, "Meters: none.")
    text = " ".join(capsys.readouterr().out.split())
    assert "Meters: none." in text
    for name, entry in METERS_KNOWN.items():
        assert f"{name}: {' '.join(entry.needs.split())[:20]}" in text
    device_text.print_probe("ssh://pi@rpi4", PI, METERS, "Meters: none.")
    assert "Meters: none." not in capsys.readouterr().out


def test_names_that_are_typed_again_stay_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "RESULTS", Console(highlight=False, width=80))
    meter: dict[str, Any] = {
        "name": "rapl",
        "channel": "package-0.uncore",
        "kind": "counter",
        "domain": "long " * 20,
    }
    meter |= {"unmeasured": "the rest", "notes": ["Sensor x.", "The shunt counts."]}
    console.print_table(
        "Meters", ("meter", "kind", "measures", "rate", "step"),
        device_text.meter_rows({"available": [meter]}), has_numbers=False,
    )  # fmt: skip
    assert "rapl:package-0.uncore " in capsys.readouterr().out
    (said,) = device_text.meter_sentences({"available": [meter]})
    assert said == ("rapl:package-0.uncore: does not see the rest. Sensor x. The shunt counts.")
