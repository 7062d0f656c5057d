"""A device keeps its id through power modes, restarts and updates; another one has another."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.datasets.device_identity import is_same_device
from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.onboard.machine.device_ids import (
    built_in_addresses,
    machine_id,
    memory_words,
)
from joulemap.device_agents.onboard.machine.fingerprint import fingerprint
from joulemap.device_agents.onboard.machine.identity import is_placeholder

MACHINE = "0123456789abcdef0123456789abcde1"
OTHER = "fedcba9876543210fedcba9876543211"
CPUS = "sys/devices/system/cpu"
ROOT = "21 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw"

PI_OVERLAY = """21 1 0:2 / / rw - overlay o rw,upperdir=/media/root-rw/overlay
22 21 0:3 / /media/root-rw rw - tmpfs tmpfs rw"""
ROUTER = """21 1 0:2 / / rw - overlay o rw,upperdir=/overlay/upper
22 21 0:3 / /overlay rw - f2fs /dev/sda2 rw"""


def write(root: Path, contents: Mapping[str, str]) -> Path:
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def cores(count: int, part: str = "0xd07") -> str:
    return "\n\n".join(
        f"processor : {cpu}\nCPU implementer : 0x41\nCPU part : {part}" for cpu in range(count)
    )


def jetson(root: Path, count: int = 4) -> Path:
    return write(
        root,
        {
            "etc/machine-id": MACHINE,
            "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
            "proc/device-tree/serial-number": "1423019000000\0",
            "proc/meminfo": "MemTotal: 4059280 kB",
            "proc/cpuinfo": cores(count),
            f"{CPUS}/present": "0-3",
            f"{CPUS}/online": f"0-{count - 1}",
        },
    )


def pc(root: Path, **more: str) -> Path:
    return write(
        root,
        {
            "etc/machine-id": MACHINE,
            "sys/class/dmi/id/sys_vendor": "LENOVO",
            "sys/class/dmi/id/product_name": "21HD",
            "proc/meminfo": "MemTotal: 32500000 kB",
            "proc/cpuinfo": "processor : 0\nmodel name : 13th Gen Intel\nflags : fpu",
            "proc/self/mountinfo": ROOT,
            **{name.replace("__", "/"): text for name, text in more.items()},
        },
    )


def card(
    root: Path, address: str, name: str = "eth0", place: str = "pci0000:00/0000:00:1f.6"
) -> None:
    device = root / "sys/devices" / place
    folder = device / "net" / name
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, {"address": address, "addr_assign_type": "0", "type": "1"})
    (root / "sys/class/net").mkdir(parents=True, exist_ok=True)
    (root / "sys/class/net" / name).symlink_to(folder)
    (folder / "device").symlink_to(device)


def of(root: Path) -> dict[str, Any]:
    return fingerprint({}, str(root))


def test_cores_that_are_taken_offline_change_no_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = set()
    for count in (4, 2, 1):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        ids.add(of(jetson(tmp_path, count))["device_id"])
    assert len(ids) == 1


@pytest.mark.parametrize("serial", ["", "1423019000000"])
def test_cores_change_no_id_whatever_evidence_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serial: str
) -> None:
    ids = set()
    for count in (6, 4):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        jetson(tmp_path, count)
        write(tmp_path, {"proc/device-tree/serial-number": serial, "etc/machine-id": ""})
        ids.add(of(tmp_path)["device_id"])
    assert len(ids) == 1


@pytest.mark.parametrize("changed", [{"etc/machine-id": OTHER}, {"etc/machine-id": ""}])
def test_a_board_with_a_number_needs_no_machine_id(
    tmp_path: Path, changed: Mapping[str, str]
) -> None:
    before = of(jetson(tmp_path))
    after = of(write(tmp_path, changed))
    assert before["device_id"] == after["device_id"]
    assert is_same_device(before, after)


@pytest.mark.parametrize(
    "mounts",
    [
        # systemd on a read-only disk, a diskless system, live systems, a Pi with its overlay.
        f"{ROOT}\n22 21 0:5 /m /etc/machine-id rw - tmpfs tmpfs rw",
        "21 1 0:1 / / rw - rootfs rootfs rw",
        f"{ROOT}\n22 21 0:5 / /etc rw - tmpfs tmpfs rw",
        "21 1 0:2 / / rw - overlay /cow rw,lowerdir=/a,upperdir=/cow/upper,workdir=/cow/work",
        "21 1 0:2 / / rw - overlay o rw,lowerdir=/a,upperdir=/run/live/rw,workdir=/run/live/w",
        PI_OVERLAY,
        # An image that every device has.
        "21 1 0:2 / / ro - squashfs /dev/root ro",
    ],
)
def test_a_machine_id_that_ends_with_the_run_counts_for_nothing(
    tmp_path: Path, mounts: str
) -> None:
    pc(tmp_path, proc__self__mountinfo=mounts)
    card(tmp_path, "54:e1:ad:00:00:01")
    before = of(tmp_path)
    assert machine_id(Files(str(tmp_path))) == (MACHINE, False)
    after = of(write(tmp_path, {"etc/machine-id": OTHER}))
    assert before["device_id"] == after["device_id"]
    (tmp_path / "etc/machine-id").unlink()
    assert of(tmp_path)["device_id"] == before["device_id"]


@pytest.mark.parametrize(
    "mounts",
    [
        ROOT,
        "",
        "nonsense\n1 2 3",
        # The initial file system lies below the real one.
        f"1 1 0:1 / / rw - rootfs rootfs rw\n{ROOT}",
        ROUTER,
    ],
)
def test_one_on_a_lasting_disk_is_the_machines(tmp_path: Path, mounts: str) -> None:
    pc(tmp_path, proc__self__mountinfo=mounts)
    before = of(tmp_path)
    write(tmp_path, {"proc/meminfo": "MemTotal: 31900000 kB", "proc/cpuinfo": "model name : other"})
    assert of(tmp_path)["device_id"] == before["device_id"]
    assert of(write(tmp_path, {"etc/machine-id": OTHER}))["device_id"] != before["device_id"]


def test_containers_of_one_image_do_not_share_its_machine_id(tmp_path: Path) -> None:
    pc(tmp_path, proc__self__mountinfo="21 1 0:2 / / rw - overlay o rw,upperdir=/var/lib/docker/x")
    write(tmp_path, {".dockerenv": ""})
    before = of(tmp_path)
    assert of(write(tmp_path, {"etc/machine-id": OTHER}))["device_id"] == before["device_id"]
    # The host's, lent to the container, is the host's.
    mounts = "21 1 0:2 / / rw - overlay o rw\n30 21 8:1 /m /etc/machine-id ro - ext4 /dev/sda1 rw"
    write(tmp_path, {"proc/self/mountinfo": mounts, "etc/machine-id": MACHINE})
    host = of(pc(tmp_path / "host"))
    assert of(tmp_path)["device_id"] == host["device_id"]


def test_copies_of_a_disk_are_devices_of_their_own(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for root, address in ((first, "54:e1:ad:00:00:01"), (second, "54:e1:ad:00:00:02")):
        pc(root)
        card(root, address)
    ours, theirs = of(first), of(second)
    assert not is_same_device(ours, theirs)
    assert is_same_device(ours, of(first))
    # Into another model of computer, without a card that is built in.
    third = pc(tmp_path / "c")
    before = of(third)
    moved = of(write(third, {"sys/class/dmi/id/product_name": "20XW"}))
    assert moved["device_id"] != before["device_id"]
    # A second card makes no other machine of it, before the first one in order or after.
    card(first, "54:e1:ad:00:00:08", "eth2", "pci0000:00/0000:00:01.0")
    assert is_same_device(ours, of(first))
    card(first, "54:e1:ad:00:00:09", "eth1", "pci0000:00/0000:00:1c.0")
    assert is_same_device(ours, of(first))


def test_a_new_system_on_the_same_machine_is_the_same_device(tmp_path: Path) -> None:
    card(pc(tmp_path), "54:e1:ad:00:00:01")
    before = of(tmp_path)
    after = of(write(tmp_path, {"etc/machine-id": OTHER}))
    assert after["device_id"] == before["device_id"]
    # While its network card does not show, the machine id tells.
    (tmp_path / "sys/class/net/eth0").unlink()
    assert is_same_device(after, of(tmp_path))


def test_two_machine_ids_in_one_run_of_a_kernel_are_two_devices(tmp_path: Path) -> None:
    boot = "proc/sys/kernel/random/boot_id"
    pc(tmp_path, proc__self__mountinfo="21 1 0:1 / / rw - rootfs rootfs rw")
    before = of(write(tmp_path, {boot: "8e6a0b38-0c2f-4b57-8f2c-6a1f4d7e9b10"}))
    other = of(write(tmp_path, {"etc/machine-id": OTHER}))
    # Nothing else tells them apart.
    assert other["device_id"] == before["device_id"]
    assert not is_same_device(before, other)
    restarted = of(write(tmp_path, {boot: "11111111-0c2f-4b57-8f2c-6a1f4d7e9b10"}))
    assert is_same_device(before, restarted)
    # A container may be started anew.
    write(tmp_path, {".dockerenv": ""})
    assert "run" not in of(tmp_path)["identity"]


def test_what_root_alone_may_read_makes_no_other_device(tmp_path: Path) -> None:
    path = "sys/class/dmi/id/product_uuid"
    as_user = of(pc(tmp_path))
    uuids = ("4c4c4544-0042-3510-8051-b9c04f4d3733", "4c4c4544-0042-3510-8051-b9c04f4d3734")
    as_root = of(write(tmp_path, {path: uuids[0]}))
    assert is_same_device(as_user, as_root)
    assert of(write(tmp_path, {"etc/machine-id": OTHER}))["device_id"] == as_root["device_id"]
    # A copied virtual machine has another one.
    write(tmp_path, {path: uuids[1], "etc/machine-id": MACHINE})
    assert not is_same_device(as_root, of(tmp_path))
    of_all = of(write(tmp_path, {path: "03000200-0400-0500-0006-000700080009"}))
    assert of_all["device_id"] == as_user["device_id"]


def test_a_board_without_a_number_and_a_machine_id_is_known_by_its_network_card(
    tmp_path: Path,
) -> None:
    ids = []
    for address in ("00:11:22:33:44:51", "00:11:22:33:44:52"):
        root = write(tmp_path / address[-1], {"proc/device-tree/model": "Some board\0"})
        card(root, address, place="platform/soc/ethernet")
        ids.append(of(root)["device_id"])
    assert len(set(ids)) == 2


@pytest.mark.parametrize(
    ("address", "place", "more"),
    [
        ("02:11:22:33:44:55", "pci/0", {}),
        ("00:00:00:00:00:00", "pci/0", {}),
        ("00:11:22:33:44:55", "pci/0/usb1/1-2", {}),
        ("00:11:22:33:44:55", "pci/0/virtio3", {}),
        ("00:11:22:33:44:55", "pci/0", {"addr_assign_type": "3"}),
        ("00:11:22:33:44:55", "pci/0", {"wireless/status": "0"}),
        ("00:11:22:33:44:55", "pci/0", {"type": "772"}),
        ("nonsense", "pci/0", {}),
    ],
)
def test_addresses_that_come_and_go_are_none_of_the_machine(
    tmp_path: Path, address: str, place: str, more: Mapping[str, str]
) -> None:
    card(tmp_path, address, place=place)
    write(tmp_path / "sys/class/net/eth0", more)
    assert built_in_addresses(Files(str(tmp_path))) == ()


def test_a_virtual_machines_card_is_its_hosts_matter(tmp_path: Path) -> None:
    card(tmp_path, "00:11:22:33:44:55")
    assert built_in_addresses(Files(str(tmp_path)))
    write(tmp_path, {"proc/cpuinfo": "flags : hypervisor"})
    assert built_in_addresses(Files(str(tmp_path))) == ()


def former(machine: str, board: str, model: str, count: int, gib: int, *extra: str) -> str:
    """The id as it was made before."""
    text = "|".join(map(str, (machine, board, model, count, gib)))
    text += "|" + "|".join(extra) if any(extra) else ""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_what_was_measured_under_a_former_id_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr("platform.processor", lambda: "")
    now = of(jetson(tmp_path))
    board, serial = "NVIDIA Jetson Nano Developer Kit\0", "1423019000000"
    before = {"device_id": former(MACHINE, board, f"{count}x Cortex-A57", count, 4, serial, "", "")}
    assert is_same_device(before, now)
    assert is_same_device(now, before)
    other = {"device_id": former(OTHER, board, f"{count}x Cortex-A57", count, 4, serial, "", "")}
    assert not is_same_device(other, now)


def test_cores_that_had_no_name_then_are_known_by_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr("platform.processor", lambda: "")
    write(tmp_path, {"etc/machine-id": MACHINE, "proc/cpuinfo": cores(2, "0xd40")})
    write(tmp_path, {"proc/meminfo": "MemTotal: 4059280 kB"})
    now = of(tmp_path)
    model = "2x part 0xd40 of implementer 0x41"
    text = "|".join(map(str, (MACHINE, None, model, 2, 4)))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] in now["former_ids"]
    assert now["cpu_model"] == "2x Neoverse-V1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0000000000000000", True),
        ("", True),
        ("unknown", True),
        ("Not Specified", True),
        ("To Be Filled By O.E.M.", True),
        ("10000000abcdef01", False),
        ("1423019000000", False),
        ("R58M12ABCDE", False),
    ],
)
def test_what_is_no_number_of_a_device(text: str, expected: bool) -> None:
    assert is_placeholder(text) is expected


@given(gib=st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64]), share=st.floats(0.86, 0.999))
def test_the_memorys_size_does_not_depend_on_what_is_reserved(gib: int, share: float) -> None:
    assert memory_words(int(gib * 2**30 * share)) == f"{gib * 1024} MiB"


@pytest.mark.parametrize("serial", ["0123456789ABCDEF", "1234567890", "0000000000"])
def test_a_number_that_makers_write_for_all_is_no_devices_own(tmp_path: Path, serial: str) -> None:
    before = of(write(jetson(tmp_path), {"proc/device-tree/serial-number": f"{serial}\0"}))
    after = of(write(tmp_path, {"etc/machine-id": OTHER}))
    assert not is_same_device(before, after)


@given(size=st.integers(0, 10**24))
def test_any_size_of_memory_has_words_or_none(size: int) -> None:
    assert (memory_words(size) is None) is (size == 0)


def test_a_device_without_any_evidence_has_an_id(tmp_path: Path) -> None:
    found = of(tmp_path)
    assert len(found["device_id"]) == 16
    assert found["identity"] == {}


@given(
    first=st.dictionaries(
        st.sampled_from(["device_id", "former_ids", "identity"]),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["serial", "network"]), inner)
            ),
            max_leaves=6,
        ),
    ),
)
def test_whatever_a_device_says_is_compared(first: dict[str, Any]) -> None:
    second = {"device_id": "a", "former_ids": ["b"], "identity": {"network": ["n"], "serial": "s"}}
    assert is_same_device(first, second) == is_same_device(second, first)
    assert isinstance(is_same_device(first, first), bool)
