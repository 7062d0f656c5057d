"""What a measurement is and where it lives: networks as data, records, journals, datasets.

Names are imported when first used: who reaches a device needs no pandas.
"""

from __future__ import annotations

if __name__ == "datasets":  # found because the checkout itself is on Python's path
    raise ImportError(
        "this folder is imported as joulemap.datasets: run Python with -P, or from another folder"
    )

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cost_dataset import CostDataset
    from .cost_table import CostTable
    from .dataset_parts import DroppedRowsWarning
    from .judgement_settings import JudgementSettings
    from .layer_profiles import LayerProfiles, LayerTime, VariantProfile
    from .layer_spec import LayerSpec, ResolvedLayer
    from .measurement import Measurement
    from .network_spec import NetworkSpec, ResolvedNetwork, Width
    from .records import Block, Conditions, Timing, Visit
    from .size import Size

__all__ = [
    "Block",
    "Conditions",
    "CostDataset",
    "CostTable",
    "DroppedRowsWarning",
    "JudgementSettings",
    "LayerProfiles",
    "LayerSpec",
    "LayerTime",
    "Measurement",
    "NetworkSpec",
    "ResolvedLayer",
    "ResolvedNetwork",
    "Size",
    "Timing",
    "VariantProfile",
    "Visit",
    "Width",
]

_MODULES = {
    "Block": "records",
    "Conditions": "records",
    "CostDataset": "cost_dataset",
    "CostTable": "cost_table",
    "DroppedRowsWarning": "dataset_parts",
    "JudgementSettings": "judgement_settings",
    "LayerProfiles": "layer_profiles",
    "LayerSpec": "layer_spec",
    "LayerTime": "layer_profiles",
    "Measurement": "measurement",
    "NetworkSpec": "network_spec",
    "ResolvedLayer": "layer_spec",
    "ResolvedNetwork": "network_spec",
    "Size": "size",
    "Timing": "records",
    "VariantProfile": "layer_profiles",
    "Visit": "records",
    "Width": "network_spec",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
