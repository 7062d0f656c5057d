"""Which packages that can run networks are installed, without importing the heavy ones."""

from __future__ import annotations

from importlib import metadata

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


def execution_providers() -> dict[str, list[str]]:
    """Return what each installed runtime can compute on; only onnxruntime tells before it runs."""
    try:
        import onnxruntime

        return {"onnxruntime": [str(name) for name in onnxruntime.get_available_providers()]}
    except Exception:  # noqa: BLE001 - a broken installation must not break the probe
        return {}
