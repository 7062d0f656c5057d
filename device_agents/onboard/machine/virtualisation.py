"""Whether a hypervisor runs a machine, from what the machine shows: yes, no, or not known.

x86 processors have a flag for it; Arm's have none, and of them only evidence counts, either way::

    yes   the flag, names in DMI or the device tree that only hypervisors give, Xen, disks and network
          cards that only exist in virtual machines
    no    x86 without the flag; a bare-metal server of a cloud; a board that the device tree names, or
          a maker in DMI that is none of those

Containers show the machine that they run on.
"""

from __future__ import annotations

import re

from ..files import Files

_DMI = "sys/class/dmi/id"
_DMI_FILES = ("sys_vendor", "product_name", "board_vendor", "board_name", "bios_vendor")
_TREES = ("proc/device-tree", "sys/firmware/devicetree/base")
# What no maker of real machines writes.
_HYPERVISORS = re.compile(
    r"qemu|\bkvm\b|vmware|^vmw$|innotek|virtualbox|\bxen\b|hvm domu|bochs|parallels|bhyve|hyper-v"
    r"|openstack|kubevirt|\bovirt\b|\brhev\b|nutanix|cloudstack|virtual (machine|platform|server)"
    r"|apple virtualization|google compute engine|amazon ec2|alibaba cloud|tencent cloud|\bcvm\b"
    r"|huaweicloud|droplet|digitalocean|\bvserver\b|hetzner|linode|akamai|upcloud|scaleway|vultr"
    r"|exoscale|firecracker|cloud hypervisor|crosvm|\bovmf\b",
    re.IGNORECASE,
)
# Clouds rent whole machines as well, under their own name.
_BARE_METAL = re.compile(r"\bmetal\b|baremetal|bare[ -]metal|\bebm", re.IGNORECASE)
# A phone's processor may have a hypervisor of its own (Gunyah, pKVM) below its system.
_TREE_NODES = re.compile(r"xen|linux,kvm|vmware|microsoft|qemu", re.IGNORECASE)
_TREE_HYPERVISORS = re.compile(
    r"dummy-virt|\bqemu\b|\bxen\b|\bkvm\b|vmware|hyper-v|crosvm|firecracker|ranchu|goldfish|cuttlefish"
    r"|apple,virtualization|virtual machine|user mode linux",
    re.IGNORECASE,
)
# Kinds of virtio devices that stand for hardware. Real boards have others, to talk to their own cores.
_VIRTUAL_DEVICES = {1, 2, 3, 4, 5, 8, 9, 16, 18, 19, 26}
_VIRTIO = "sys/bus/virtio/devices"
_EMULATED_PHONES = re.compile(r"(?mi)^Hardware\s*:.*(goldfish|ranchu|cutf|vsoc|dummy virtual)")
_HARDWARE = re.compile(r"(?m)^Hardware\s*:\s*\S")


def is_virtual(files: Files) -> bool | None:
    """Return whether a hypervisor runs this machine, None if nothing tells.

    Args:
        files: The machine's files.
    """
    cpuinfo = files.text("proc/cpuinfo")
    dmi = [text for text in (files.text(f"{_DMI}/{name}") for name in _DMI_FILES) if text]
    if any(map(_BARE_METAL.search, dmi)):
        return False
    tree = _tree(files)
    if _shows_hypervisor(files, cpuinfo or "", dmi, tree):
        return True
    is_named = bool(_HARDWARE.search(cpuinfo or "") or tree or dmi)
    if not is_named and _has_virtual_devices(files):
        return True
    # Without a flag it takes the name of a real machine.
    is_told = bool(re.search(r"(?m)^flags\s*:", cpuinfo or "")) or (
        is_named and cpuinfo is not None
    )
    return False if is_told else None


def _shows_hypervisor(files: Files, cpuinfo: str, dmi: list[str], tree: str) -> bool:
    return (
        " hypervisor" in cpuinfo
        or "User Mode Linux" in cpuinfo
        or bool(_EMULATED_PHONES.search(cpuinfo))
        or any(map(_HYPERVISORS.search, dmi))
        or bool(_TREE_HYPERVISORS.search(tree))
        or _has_tree_node(files)
        or _is_xen_guest(files)
        or _is_windows_subsystem(files)
        # s390 lists the hypervisors above it.
        or "VM00" in (files.text("proc/sysinfo") or "")
    )


def _has_tree_node(files: Files) -> bool:
    texts = [files.text(f"{folder}/hypervisor/compatible") or "" for folder in _TREES]
    return any(map(_TREE_NODES.search, texts))


def _tree(files: Files) -> str:
    """Return what the device tree says that the machine is, empty where it cannot be read."""
    texts = [
        files.text(f"{folder}/{name}") for folder in _TREES for name in ("model", "compatible")
    ]
    return " ".join(text.replace("\0", " ") for text in texts if text).strip()


def _is_xen_guest(files: Files) -> bool:
    # Xen's first domain has the hardware.
    is_first = "control_d" in (files.text("proc/xen/capabilities") or "")
    return files.text("sys/hypervisor/type") == "xen" and not is_first


def _is_windows_subsystem(files: Files) -> bool:
    release = files.text("proc/sys/kernel/osrelease") or files.text("proc/version") or ""
    return bool(re.search(r"(?i)microsoft|wsl", release))


def _has_virtual_devices(files: Files) -> bool:
    for name in files.list(_VIRTIO):
        text = files.text(f"{_VIRTIO}/{name}/device") or ""
        if re.match(r"0x[0-9a-fA-F]{1,8}\Z", text) and int(text, 16) in _VIRTUAL_DEVICES:
            return True
    return False
