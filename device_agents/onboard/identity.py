"""What tells a device from all others, for a host whose link was broken and joined again.

Beside the campaign's `device_id`: that is made of what describes the device as well, which a system
may show differently after a restart, such as processors that sleep.
"""

from __future__ import annotations

import hashlib
import os
import subprocess

from .files import Files

# For one property; a phone at work is slow, and all of them may not take as long as a probe.
GETPROP_TIMEOUT_S = 10.0
# Empty where it may not be read, as by apps such as Termux.
ANDROID_SERIAL = "ro.serialno"
_ANDROID = (("serial number", ANDROID_SERIAL), ("model", "ro.product.model"))
_FILES = (
    ("board's serial number", "proc/device-tree/serial-number"),
    ("board", "proc/device-tree/model"),
    ("machine id", "etc/machine-id"),
)


def identity(root: str = "/") -> dict[str, str]:
    """Return a hash of each thing that names the device; what it does not tell is left out.

    Args:
        root: Where the machine's files are; another folder than `/` for tests.
    """
    files = Files(root)
    found = {part: files.text(path) for part, path in _FILES}
    found.update((part, android_property(key)) for part, key in _ANDROID)
    texts = {part: (text or "").strip().strip("\0") for part, text in found.items()}
    # Nobody learns a serial number by it.
    return {
        part: hashlib.sha256(text.encode()).hexdigest()[:16]
        for part, text in texts.items()
        if not _is_placeholder(text)
    }


def android_property(key: str) -> str | None:
    """Return one of Android's properties; None where it cannot be read, or there is no Android."""
    if "ANDROID_ROOT" not in os.environ:
        return None
    try:
        done = subprocess.run(
            ["getprop", key],  # noqa: S607 - its folder differs between Android and Termux
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=GETPROP_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace").strip() or None


def _is_placeholder(text: str) -> bool:
    """Return whether it names no device: boards without a number show zeros, emulators a word."""
    return len(set(text)) < 2 or text.lower() in ("unknown", "uninitialized")
