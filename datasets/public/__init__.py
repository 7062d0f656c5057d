"""Measurements made by others, shipped with their licence and citation.

    from joulemap.datasets import public
    public.names()                       # 'accel_nasbench', 'hat', ...
    tables = public.load("netadapt")     # one CostTable per AlexNet layer
    print(public.about("netadapt"))

The readers take files of the same kinds from other devices: see `readers`.
"""

from .catalogue import PublicSet, about, load, names
from .readers import (
    read_accel_nasbench,
    read_architecture_latencies,
    read_blocks,
    read_convolutions,
    read_layer_grids,
    read_mlperf,
    read_operators,
    read_transformers,
)

__all__ = [
    "PublicSet",
    "about",
    "load",
    "names",
    "read_accel_nasbench",
    "read_architecture_latencies",
    "read_blocks",
    "read_convolutions",
    "read_layer_grids",
    "read_mlperf",
    "read_operators",
    "read_transformers",
]
