"""Clusters, cores and frequencies as trees of files show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.onboard.machine import frequency
from joulemap.device_agents.onboard.machine import identity as identity_module
from joulemap.device_agents.onboard.machine.fingerprint import fingerprint
from joulemap.device_agents.onboard.machine.host_state import HostState
from joulemap.device_agents.onboard.machine.permissions import permissions
from joulemap.device_agents.onboard.machine.processor import clusters, core_names, gpus

CPUS = "sys/devices/system/cpu"


def _write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")


@pytest.fixture
def phone(tmp_path: Path) -> Path:
    """Return a tree with four small and two large cores, one of the large ones switched off."""
    info = []
    for cpu, part in enumerate(["0xd05"] * 4 + ["0xd0b"] * 2):
        info.append(f"processor\t: {cpu}\nCPU implementer\t: 0x41\nCPU part\t: {part}\n")
        _write(tmp_path, f"{CPUS}/cpu{cpu}/cpu_capacity", "380" if cpu < 4 else "1024")
        policy = tmp_path / f"{CPUS}/cpufreq/policy{0 if cpu < 4 else 4}"
        policy.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{CPUS}/cpu{cpu}/cpufreq").symlink_to(policy)
    _write(tmp_path, "proc/cpuinfo", "\n".join(info) + "\nHardware\t: Some SoC")
    _write(tmp_path, f"{CPUS}/online", "0-4")
    for number, governor, low, high in ((0, "schedutil", 300, 1800), (4, "powersave", 600, 2400)):
        policy_path = f"{CPUS}/cpufreq/policy{number}"
        _write(tmp_path, f"{policy_path}/scaling_governor", governor)
        _write(tmp_path, f"{policy_path}/scaling_available_governors", f"{governor} performance")
        _write(tmp_path, f"{policy_path}/cpuinfo_min_freq", f"{low}000")
        _write(tmp_path, f"{policy_path}/cpuinfo_max_freq", f"{high}000")
        _write(tmp_path, f"{policy_path}/scaling_cur_freq", f"{low}000")
    for number, kind, temperature in ((0, "cpu-thermal", "48250"), (10, "gpu-thermal", "-274000")):
        zone = f"sys/class/thermal/thermal_zone{number}"
        _write(tmp_path, f"{zone}/type", kind)
        _write(tmp_path, f"{zone}/temp", temperature)
    return tmp_path


def test_clusters_have_their_cores_and_frequencies(phone: Path) -> None:
    small, large = clusters(Files(str(phone)))
    assert small == {
        "cpus": [0, 1, 2, 3],
        "core": "Cortex-A55",
        "capacity": 380,
        "governor": "schedutil",
        "governors": ["schedutil", "performance"],
        "min_frequency_hz": 300e6,
        "max_frequency_hz": 1.8e9,
        "frequency_hz": 300e6,
    }
    assert (large["cpus"], large["core"], large["governor"]) == ([4], "Cortex-A76", "powersave")


def test_a_machine_that_says_little_has_one_group(tmp_path: Path) -> None:
    assert clusters(Files(str(tmp_path))) == []
    _write(tmp_path, "proc/cpuinfo", "processor: 0\nmodel name: A\n\nprocessor: 1\nmodel name: A")
    (group,) = clusters(Files(str(tmp_path)))
    assert (group["cpus"], group["core"], group["max_frequency_hz"]) == ([0, 1], "A", None)


def test_nonsense_in_the_kernels_files_is_no_reading(phone: Path) -> None:
    _write(phone, f"{CPUS}/cpufreq/policy0/cpuinfo_max_freq", "-1")
    _write(phone, f"{CPUS}/cpu0/cpu_capacity", "x")
    _write(phone, f"{CPUS}/online", "0-99999999,a,3-")
    assert clusters(Files(str(phone)))[0]["max_frequency_hz"] is None


def test_unknown_cores_are_named_by_their_numbers(tmp_path: Path) -> None:
    _write(
        tmp_path,
        "proc/cpuinfo",
        "processor : 0\nCPU implementer : 0x61\nCPU part : 0x022\n\nprocessor : 1\nCPU part : y",
    )
    assert core_names(Files(str(tmp_path))) == {0: "part 0x022 of implementer 0x61"}


def test_graphics_processors_are_listed(tmp_path: Path) -> None:
    folder = "proc/driver/nvidia/gpus/0000:01:00.0"
    _write(tmp_path, f"{folder}/information", "Model: \t NVIDIA A100\nIRQ: 1")
    assert gpus(Files(str(tmp_path))) == [{"model": "NVIDIA A100", "bus": "0000:01:00.0"}]


def test_thermal_zones_are_listed_in_order(phone: Path) -> None:
    assert HostState(str(phone)).thermal_zones() == [
        {"type": "cpu-thermal", "temperature_c": 48.25, "is_used": True, "note": None},
        {
            "type": "gpu-thermal",
            "temperature_c": None,
            "is_used": False,
            "note": "switched off, or no temperature",
        },
    ]


def test_whether_the_frequency_can_be_held_is_told_without_changing_it(phone: Path) -> None:
    assert frequency.refusal([0], str(phone)) is None
    assert (phone / f"{CPUS}/cpufreq/policy0/scaling_governor").read_text() == "schedutil\n"
    answer = permissions([7], str(phone))["frequency_lock"]
    assert not answer["is_permitted"]
    assert "not offered for CPU 7" in answer["reason"]
    assert permissions([0], str(phone))["affinity"] == {"is_permitted": True, "reason": None}


def test_copies_of_one_memory_card_are_different_devices(phone: Path) -> None:
    first = fingerprint({}, str(phone))
    _write(phone, "proc/device-tree/serial-number", "10000000abcdef01\0")
    second = fingerprint({}, str(phone))
    assert first["device_id"] != second["device_id"]
    assert second["device_id"] == fingerprint({}, str(phone))["device_id"]
    assert second["cpu_model"] == "Some SoC"
    assert second["max_frequency_hz"] == 1.8e9
    assert second["temperature_c"] == 48.25


def test_the_system_is_described_for_advice(tmp_path: Path) -> None:
    _write(tmp_path, "etc/os-release", 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\nX=1')
    found = fingerprint({}, str(tmp_path))
    assert found["os"] == "Debian 12"
    assert found["os_release"] == {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian 12"}
    assert found["execution_providers"]["onnxruntime"]
    assert found["packages"]["onnxruntime"]


def test_an_android_build_is_read_from_its_properties(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fingerprint({}, str(tmp_path))["android"] is None
    program = tmp_path / "bin/getprop"
    _write(
        tmp_path,
        "bin/getprop",
        '#!/bin/sh\ncase $1 in ro.product.model) echo "Pixel 8";; ro.soc.model) echo Tensor;; '
        "ro.build.fingerprint) cat /proc/sys/kernel/random/uuid;; ro.serialno) echo $SERIAL;; esac",
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("ANDROID_ROOT", "/system")
    monkeypatch.setenv("TERMUX_VERSION", "0.118.1")
    first, second = fingerprint({}, str(tmp_path)), fingerprint({}, str(tmp_path))
    assert (first["android"]["model"], first["android"]["soc"]) == ("Pixel 8", "Tensor")
    assert first["termux"] == "0.118.1"
    # An update of the system leaves the device what it is.
    assert first["android"]["build"] != second["android"]["build"]
    # Another phone of the same model is another device, and its number is nobody's business.
    monkeypatch.setenv("SERIAL", "0123456789")
    other = fingerprint({}, str(tmp_path))
    assert other["device_id"] != first["device_id"]
    assert other["device_id"] == fingerprint({}, str(tmp_path))["device_id"]
    assert "0123456789" not in str(other)
    assert first["device_id"] == second["device_id"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fingerprint({}, str(tmp_path))["android"] is None


def test_a_phone_that_does_not_tell_its_properties_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, asked = tmp_path / "bin/getprop", tmp_path / "asked"
    _write(tmp_path, "bin/getprop", f"#!/bin/sh\necho $1 >> {asked}\nexec sleep 60")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("ANDROID_ROOT", "/system")
    monkeypatch.setattr(identity_module, "GETPROP_TIMEOUT_S", 2.0)
    assert fingerprint({}, str(tmp_path))["android"] is None
    assert len(asked.read_text().splitlines()) == 1
