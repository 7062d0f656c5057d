"""Which packages that can run networks are installed, without importing the heavy ones."""

from __future__ import annotations

import os
from importlib import metadata
from typing import Any

PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "ai-edge-litert",
    "tflite-runtime",
    "tensorflow",
    "torch",
)


def versions() -> dict[str, str]:
    """Return package name to version, of those that are installed for this interpreter."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = str(metadata.version(package))
        except (metadata.PackageNotFoundError, OSError, ValueError):
            continue
    return found


def onnxruntime() -> Any:
    """Return the module onnxruntime, which reports to nobody.

    Left to itself version 1.32 keeps a database in the user's cache folder, looks up names and
    sends, on a thread beside what is measured. It has to be told before it is imported.

    Raises:
        ImportError: It is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime as module

    return module


def execution_providers() -> dict[str, list[str]]:
    """Return what each installed runtime can compute on; only onnxruntime tells before it runs."""
    try:
        names = onnxruntime().get_available_providers()
        return {"onnxruntime": [str(name) for name in names]}
    except Exception:  # noqa: BLE001 - a broken installation must not break the probe
        return {}
