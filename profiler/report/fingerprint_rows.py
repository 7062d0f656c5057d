"""What a device says of itself, as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from joulemap.showable_text import showable

# A number that is greater stands as it is.
MAX_SHOWN = 1e18
# Shown by tables of their own (`device_text`), or only for programs.
_NOT_ROWS = {"runtimes", "clusters", "gpus", "os_release", "android", "is_root", "packages"}
_NOT_ROWS |= {"execution_providers", "thermal_zones", "control", "clocks"}
_NOT_ROWS |= {"firmware_throttling", "former_ids", "identity"}


def fingerprint_rows(fingerprint: Mapping[str, Any]) -> list[list[str]]:
    """Return a device's fingerprint as rows of a table, in readable units."""
    rows = []
    for key, value in fingerprint.items():
        if key in _NOT_ROWS:
            continue
        name, shown = key, "not readable" if value is None else showable(value)
        is_number = isinstance(value, (int, float)) and abs(value) < MAX_SHOWN
        if key == "memory_bytes" and is_number:
            name, shown = "memory", f"{value / 2**30:.1f} GiB"
        elif key == "max_frequency_hz" and is_number:
            name, shown = "max_frequency", f"{value / 1e9:.2f} GHz"
        elif isinstance(value, Mapping):
            shown = ", ".join(f"{part}: {item}" for part, item in value.items() if item is not None)
        elif isinstance(value, list):
            shown = ", ".join(map(str, value))
        rows.append([name, shown])
    return rows
