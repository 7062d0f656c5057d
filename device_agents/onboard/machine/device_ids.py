"""What a device is called in journals and datasets: the same name as long as it is the same device.

The id is a hash of the first of these that the device tells::

    serial      the board's number, or an Android phone's: built in, whatever system it runs
    network     the address of a network card that is part of the machine
    uuid        the computer's by DMI, where it may be read
    machine     the system's machine id with the product's name, where it lies on a lasting disk
    kind        processor, memory, model: equal devices are then one

It holds nothing that a power mode, an update or a restart changes: no number of CPUs, which counts
those that run only; no machine id that is made anew at each start, as on read-only and diskless
systems. Ids by other evidence, and those that joulemap 0.x made, are listed beside it, so that what
was measured under them is known to be of this device.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..files import Files
from .core_kinds import parse_cpus
from .identity import is_placeholder
from .virtualisation import is_virtual

_TREES = ("proc/device-tree", "sys/firmware/devicetree/base")
_MACHINE_IDS = ("etc/machine-id", "var/lib/dbus/machine-id")
_MOUNTS = "proc/self/mountinfo"
_BOOT = "proc/sys/kernel/random/boot_id"
# File systems, and places for them, whose content ends with the machine's run.
_FLEETING = {"tmpfs", "ramfs", "rootfs"}
# Images of a system, the same on every device that runs it.
_IMAGES = {"squashfs", "erofs", "cramfs", "iso9660"}
_FLEETING_PLACES = ("/run/", "/cow/", "/dev/shm/", "/tmp/")  # noqa: S108 - looked at, not written
# Of programs that start from an image each time. A machine id in the image is that of all of them.
_CONTAINER_MARKS = (".dockerenv", "run/.containerenv")
_MACHINE_ID = re.compile(r"[0-9A-Za-z_-]{8,64}\Z")
_OF_MANY = {"0123456789abcdef", "0123456789", "1234567890", "123456789", "12345678"}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
# Of boards whose maker left a template's.
_UUIDS_OF_MANY = {
    "03000200-0400-0500-0006-000700080009",
    "12345678-1234-5678-90ab-cddeefaabbcc",
    "fefefefe-fefe-fefe-fefe-fefefefefefe",
}
_NETWORK = "sys/class/net"
_ADDRESS = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}\Z")
# Of the first byte: given by software, or meant for a group.
_NOT_BUILT_IN = 0b11
_MAX_COUNTS = 32
_MAX_NETWORK = 8


@dataclass(frozen=True)
class Evidence:
    """What tells a device from others.

    Args:
        serial: The board's or phone's number; empty if it tells none.
        uuid: The computer's by DMI; empty where there is none or root alone may read it.
        machine: The machine id; empty where there is none or it does not last.
        product: What DMI calls the machine; empty where there is none.
        network: Addresses of built-in network cards, in the order of their places.
        run: A machine id that ends with this run of the system; empty where there is none.
        boot: What the kernel calls this run.
        kind: Words that describe it and do not change.
    """

    serial: str = ""
    uuid: str = ""
    machine: str = ""
    product: str = ""
    network: tuple[str, ...] = ()
    run: str = ""
    boot: str = ""
    kind: tuple[str, ...] = field(default=())

    def ids(self) -> list[str]:
        """Return the ids by each kind of evidence, the strongest first, at least one."""
        if self.serial:
            # A card with the system may be a copy: what is on it is no evidence beside the number.
            return [_digest("serial", self.serial)]
        found = [_digest("network", address) for address in self.network]
        if self.uuid:
            found.append(_digest("uuid", self.uuid))
        if self.machine:
            found.append(_digest("machine", self.machine, self.product))
        return found or [_digest("kind", self.product, *self.kind)]

    def parts(self) -> dict[str, object]:
        """Return hashes of what two devices of one id would differ in."""
        parts: dict[str, object] = {}
        if self.serial:
            parts["serial"] = _digest(self.serial)
        if self.uuid:
            parts["uuid"] = _digest(self.uuid)
        if self.network:
            parts["network"] = [_digest(address) for address in self.network]
        if self.run and self.boot:
            parts.update(run=_digest(self.run), boot=_digest(self.boot))
        return parts


def evidence(files: Files, serial: str | None, kind: Sequence[str | None]) -> Evidence:
    """Return what a machine's files tell.

    Args:
        files: The machine's files.
        serial: Number of an Android phone, None elsewhere.
        kind: What describes the device.
    """
    numbers = [serial, *(files.text(f"{folder}/serial-number") for folder in _TREES)]
    texts = [(number or "").strip("\0 \t\n") for number in numbers]
    dmi = [files.text(f"sys/class/dmi/id/{name}") or "" for name in ("sys_vendor", "product_name")]
    machine, is_lasting = machine_id(files)
    return Evidence(
        serial=next((text for text in texts if not _is_of_many(text)), ""),
        uuid=_computers_uuid(files),
        machine=machine if is_lasting else "",
        product=" ".join(filter(None, dmi)),
        network=built_in_addresses(files),
        # Of containers a new one may be started in the same run.
        run="" if is_lasting or _is_container(files) else machine,
        boot=files.text(_BOOT) or "",
        # What may be the maker's for all is no evidence by itself.
        kind=tuple(word for word in (*kind, *texts) if word),
    )


def machine_id(files: Files) -> tuple[str, bool]:
    """Return the machine id, empty where there is none, and whether it outlives this run."""
    for path in _MACHINE_IDS:
        text = files.text(path) or ""
        if _MACHINE_ID.match(text) and not is_placeholder(text):
            return text, _is_lasting(files, f"/{path}")
    return "", False


def built_in_addresses(files: Files) -> tuple[str, ...]:
    """Return the addresses of network cards that belong to the machine, by their places.

    None of virtual machines, whose host gives them; of wireless and USB cards, which change theirs or
    come and go; and of those that software gave.
    """
    if is_virtual(files):
        return ()
    found = []
    for name in files.list(_NETWORK)[:256]:
        folder = f"{_NETWORK}/{name}"
        inside = files.list(folder)
        if "device" not in inside or {"wireless", "phy80211"} & set(inside):
            continue
        place = files.resolve(f"{folder}/device")
        address = (files.text(f"{folder}/address") or "").lower()
        if (
            files.text(f"{folder}/addr_assign_type") == "0"
            and files.text(f"{folder}/type") == "1"
            and files.text(f"{folder}/device/removable") != "removable"
            and not re.search(r"(^|/)(usb|virtio|vmbus|xen)[0-9./-]", f"{place}/")
            and _ADDRESS.match(address)
            and not int(address[:2], 16) & _NOT_BUILT_IN
            and len(set(address.replace(":", ""))) > 1
        ):
            found.append((place, address))
    return tuple(address for _, address in sorted(found)[:_MAX_NETWORK])


def _computers_uuid(files: Files) -> str:
    text = (files.text("sys/class/dmi/id/product_uuid") or "").lower()
    is_uuid = _UUID.match(text) and text not in _UUIDS_OF_MANY
    return text if is_uuid and not is_placeholder(text) else ""


def _is_of_many(serial: str) -> bool:
    """Return whether a number is on many devices: none at all, or what makers write for all."""
    return is_placeholder(serial) or serial.lower() in _OF_MANY


def memory_words(memory_bytes: int | None) -> str | None:
    """Return the size that the memory was sold as, None if unknown.

    What the kernel and the graphics keep for themselves differs from one version to the next.
    """
    if not memory_bytes:
        return None
    sizes = sorted(step * 2**power for power in range(20, 50) for step in (2, 3))
    size = next((size for size in sizes if size >= memory_bytes), sizes[-1])
    return f"{size >> 20} MiB"


def former_ids(
    files: Files,
    cpu_models: Mapping[int | None, str | None],
    memory_bytes: int | None,
    extra: Sequence[str],
) -> list[str]:
    """Return the ids that the device had before ids were made as here.

    They held the number of CPUs that ran, so there is one for each number that it may have been.

    Args:
        files: The machine's files.
        cpu_models: The processor's name by the number of CPUs, where it holds that number; under
            None for all others.
        memory_bytes: The memory.
        extra: The serial number of the device tree, Android's model and SoC, Android's number.
    """
    machine = files.text("etc/machine-id") or files.text("var/lib/dbus/machine-id") or ""
    board = files.text("proc/device-tree/model")
    size_gib = round(memory_bytes / 2**30) if memory_bytes else None
    present = parse_cpus(files.text("sys/devices/system/cpu/present") or "")
    most = max(len(present), os.cpu_count() or 1)
    counts = dict.fromkeys([os.cpu_count(), most, *range(1, min(most, _MAX_COUNTS) + 1)])
    found = []
    for count in counts:
        model = cpu_models.get(count, cpu_models.get(None))
        text = "|".join(str(part) for part in (machine, board, model, count, size_gib))
        text += "|" + "|".join(extra) if any(extra) else ""
        found.append(hashlib.sha256(text.encode()).hexdigest()[:16])
    return list(dict.fromkeys(found))


def _is_lasting(files: Files, path: str) -> bool:
    """Return whether a file outlives this run of the system."""
    mounts = _mounts(files.text(_MOUNTS) or "")
    mount = _mount_of(path, mounts)
    if mount is None:
        return True
    if mount[0] != path and _is_container(files):
        return False
    _, kind, options = mount
    if kind == "overlay":
        upper = re.search(r"(?:^|,)upperdir=([^,]+)", options)
        above = f"{upper.group(1)}/" if upper else ""
        if above.startswith(_FLEETING_PLACES):
            return False
        below = _mount_of(above, [each for each in mounts if each[0] != "/"]) if above else None
        return below is None or below[1] not in _FLEETING
    return kind not in _FLEETING | _IMAGES


def _is_container(files: Files) -> bool:
    return any(files.text(mark) is not None for mark in _CONTAINER_MARKS)


def _mounts(text: str) -> list[tuple[str, str, str]]:
    """Return place, file system and options of what is mounted, the last one last."""
    found = []
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        places, kinds = before.split(), after.split()
        if dash and len(places) > 4 and kinds:
            found.append((places[4], kinds[0], kinds[2] if len(kinds) > 2 else ""))
    return found


def _mount_of(path: str, mounts: Sequence[tuple[str, str, str]]) -> tuple[str, str, str] | None:
    """Return the mount that a path lies in."""
    holding = [
        mount for mount in mounts if path == mount[0] or path.startswith(mount[0].rstrip("/") + "/")
    ]
    # Of two at one place the later one hides the other.
    return max(reversed(holding), key=lambda mount: len(mount[0]), default=None)


def _digest(*parts: str) -> str:
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]
