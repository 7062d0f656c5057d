"""What a measurement is and where it lives: networks as data, records, journals, datasets."""

from .layer_spec import LayerSpec, ResolvedLayer
from .network_spec import NetworkSpec, ResolvedNetwork, Width
from .size import Size

__all__ = ["LayerSpec", "NetworkSpec", "ResolvedLayer", "ResolvedNetwork", "Size", "Width"]
