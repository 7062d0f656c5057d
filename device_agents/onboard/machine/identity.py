"""What tells a device from all others, for a host whose link was broken and joined again.

Beside the campaign's `device_id`: that is made of what describes the device as well, which a system
may show differently after a restart, such as processors that sleep.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import time
from collections.abc import Sequence

from ..files import Files

# For all properties, on a phone that is busy.
GETPROP_TIMEOUT_S = 20.0
# Empty where it may not be read, as by apps such as Termux.
ANDROID_SERIAL = "ro.serialno"
_ANDROID = (("serial number", ANDROID_SERIAL), ("model", "ro.product.model"))
# What makers write who gave no number, and what systems write before they have one.
_WORDS = frozenset(
    (
        "unknown",
        "uninitialized",
        "none",
        "null",
        "default",
        "defaultstring",
        "notspecified",
        "notavailable",
        "invalid",
        "serialnumber",
        "systemserialnumber",
        "tobefilledbyoem",
    )
)
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
    properties = android_properties([key for _, key in _ANDROID])
    found.update((part, properties.get(key)) for part, key in _ANDROID)
    texts = {part: (text or "").strip().strip("\0") for part, text in found.items()}
    # Nobody learns a serial number by it.
    return {
        part: hashlib.sha256(text.encode()).hexdigest()[:16]
        for part, text in texts.items()
        if not is_placeholder(text)
    }


def android_properties(keys: Sequence[str]) -> dict[str, str]:
    """Return those of Android's properties that can be read; none where there is no Android."""
    found = {}
    deadline = time.monotonic() + GETPROP_TIMEOUT_S
    for key in keys if "ANDROID_ROOT" in os.environ else ():
        try:
            done = subprocess.run(
                ["getprop", key],  # noqa: S607 - its folder differs between Android and Termux
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=max(0.0, deadline - time.monotonic()),
                check=False,
            )
        except subprocess.TimeoutExpired:
            break
        except OSError:
            continue
        text = done.stdout.decode("utf-8", "replace").strip()
        if text:
            found[key] = text
    return found


def is_placeholder(text: str) -> bool:
    """Return whether it names no device: boards without a number show zeros, emulators a word."""
    plain = re.sub(r"[^0-9a-z]", "", text.lower())
    return len(set(plain)) < 2 or plain in _WORDS
