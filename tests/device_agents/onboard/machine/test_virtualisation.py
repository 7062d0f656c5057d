"""Virtual or real, by what real machines and guests show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulemap.device_agents.onboard.files import Files
from joulemap.device_agents.onboard.machine.virtualisation import is_virtual

ARM = "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c"
X86 = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu vme sse4_2"
DMI = "sys/class/dmi/id"
TREE = "proc/device-tree"


def dmi(vendor: str, product: str = "", **more: str) -> dict[str, str]:
    named = {"sys_vendor": vendor, "product_name": product, **more}
    return {f"{DMI}/{name}": text for name, text in named.items()}


def write(root: Path, contents: Mapping[str, str]) -> Files:
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return Files(str(root))


@pytest.mark.parametrize(
    "guest",
    [
        {"proc/cpuinfo": X86 + " hypervisor"},
        {"proc/cpuinfo": ARM, **dmi("Amazon EC2", "c6g.large")},
        {"proc/cpuinfo": ARM, **dmi("QEMU", "KVM Virtual Machine")},
        {"proc/cpuinfo": ARM, **dmi("QEMU", "QEMU Virtual Machine")},
        {"proc/cpuinfo": ARM, **dmi("Google", "Google Compute Engine")},
        {"proc/cpuinfo": ARM, **dmi("Microsoft Corporation", "Virtual Machine")},
        {"proc/cpuinfo": ARM, **dmi("Hetzner", "vServer")},
        {"proc/cpuinfo": ARM, **dmi("VMware, Inc.", "VMware20,1")},
        {"proc/cpuinfo": ARM, **dmi("Apple Inc.", "Apple Virtualization Generic Platform")},
        {"proc/cpuinfo": ARM, **dmi("Parallels International GmbH.", "Parallels ARM Virtual Machine")},
        {"proc/cpuinfo": ARM, **dmi("", "", bios_vendor="EFI Development Kit II / OVMF")},
        # A guest whose flag is hidden.
        {"proc/cpuinfo": X86, **dmi("innotek GmbH", "VirtualBox")},
        {"proc/cpuinfo": ARM, f"{TREE}/model": "linux,dummy-virt\0"},
        {"proc/cpuinfo": ARM, f"{TREE}/hypervisor/compatible": "xen,xen-4.17\0xen,xen\0"},
        {"proc/cpuinfo": ARM, f"{TREE}/hypervisor/compatible": "linux,kvm\0"},
        {"proc/cpuinfo": ARM, "sys/hypervisor/type": "xen"},
        {"proc/cpuinfo": ARM, "sys/bus/virtio/devices/virtio0/device": "0x0001"},
        {"proc/cpuinfo": ARM, "proc/sys/kernel/osrelease": "5.15.153.1-microsoft-standard-WSL2"},
        {"proc/cpuinfo": ARM + "\nHardware\t: ranchu"},
        {"proc/cpuinfo": "vendor_id\t: User Mode Linux"},
    ],
)  # fmt: skip
def test_guests_are_virtual(tmp_path: Path, guest: Mapping[str, str]) -> None:
    assert is_virtual(write(tmp_path, guest)) is True


@pytest.mark.parametrize(
    "real",
    [
        {"proc/cpuinfo": X86},
        {"proc/cpuinfo": X86, **dmi("Dell Inc.", "PowerEdge R750")},
        {"proc/cpuinfo": X86, **dmi("Microsoft Corporation", "Surface Laptop 5")},
        {"proc/cpuinfo": X86, **dmi("Google", "Eve")},
        {"proc/cpuinfo": X86, **dmi("Oracle Corporation", "ORACLE SERVER X8-2")},
        # Rented as whole machines.
        {"proc/cpuinfo": ARM, **dmi("Amazon EC2", "c6g.metal")},
        {"proc/cpuinfo": X86, **dmi("Amazon EC2", "m7i.metal-24xl")},
        {"proc/cpuinfo": ARM, **dmi("GIGABYTE", "G242-P32-QZ")},
        {"proc/cpuinfo": ARM, **dmi("NVIDIA", "Jetson AGX Orin", bios_vendor="EDK II")},
        {"proc/cpuinfo": ARM, f"{TREE}/model": "Raspberry Pi 5 Model B Rev 1.0\0"},
        {"proc/cpuinfo": ARM, f"{TREE}/model": "Apple MacBook Pro (14-inch, M1 Pro, 2021)\0"},
        {"proc/cpuinfo": ARM + "\nHardware\t: Qualcomm Technologies, Inc SM8250"},
        # A phone's own hypervisor, and the channel to a processor's small cores.
        {
            "proc/cpuinfo": ARM,
            f"{TREE}/model": "Qualcomm Technologies, Inc. SM8550\0",
            f"{TREE}/hypervisor/compatible": "qcom,gunyah-hypervisor-1.0\0simple-bus\0",
        },
        {
            "proc/cpuinfo": ARM,
            f"{TREE}/model": "Texas Instruments AM625 SK\0",
            "sys/bus/virtio/devices/virtio0/device": "0x0007",
        },
        # A card that gives a server virtio disks.
        {
            "proc/cpuinfo": X86,
            **dmi("Supermicro", "SYS-110P"),
            "sys/bus/virtio/devices/virtio0/device": "0x0002",
        },
    ],
)
def test_real_machines_are_not(tmp_path: Path, real: Mapping[str, str]) -> None:
    assert is_virtual(write(tmp_path, real)) is False


@pytest.mark.parametrize(
    "silent",
    [{}, {"proc/cpuinfo": ARM}, {"proc/cpuinfo": "processor : 0\nisa : rv64imafdc"}],
)
def test_what_nothing_tells_is_not_known(tmp_path: Path, silent: Mapping[str, str]) -> None:
    assert is_virtual(write(tmp_path, silent)) is None


@given(text=st.text(max_size=60))
def test_any_text_gives_an_answer(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("machine")
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_bytes(text.encode("utf-8", "replace"))
    assert is_virtual(Files(str(root))) in (True, False, None)
