"""What a measurement is and where it lives: networks as data, records, journals, datasets."""

if __name__ == "datasets":  # found because the checkout itself is on Python's path
    raise ImportError(
        "this folder is imported as joulemap.datasets: run Python with -P, or from another folder"
    )

from .cost_dataset import CostDataset, DroppedRowsWarning
from .cost_table import CostTable
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
