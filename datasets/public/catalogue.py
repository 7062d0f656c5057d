"""Which public sets there are: what was measured, by whom, under which licence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from joulemap import InputError

from ..cost_table import CostTable
from . import readers

_DATA = Path(__file__).parent / "data"
_MIT = "MIT"
_APACHE = "Apache-2.0"


@dataclass(frozen=True)
class PublicSet:
    """A set of measurements by others.

    Attributes:
        name: What `load` calls it.
        what: What was measured, how.
        licence: SPDX identifier.
        origin: Repository that it comes from.
        citation: Whom to cite.
        caveats: What its figures are not.
        files: Shipped files.
        reader: Takes the files' paths, returns the tables by name.
    """

    name: str
    what: str
    licence: str
    origin: str
    citation: str
    caveats: str
    files: tuple[str, ...]
    reader: Callable[..., dict[str, CostTable]]

    def __str__(self) -> str:
        """Return all of it in a few lines."""
        return (
            f"{self.name}: {self.what}\n{self.caveats}\n"
            f"Licence {self.licence}; from {self.origin}; cite {self.citation}"
        )


_SETS = (
    PublicSet(
        "accel_nasbench",
        "networks of the MnasNet space on TPUv2, TPUv3, A100, RTX 3090, ZCU102 and VCK190: seconds "
        "per image, from throughput",
        _APACHE,
        "github.com/afzalxo/Accel-NASBench",
        "Ahmad et al., Accel-NASBench, arXiv 2404.08005",
        "Labels `split` hold the authors' split into train and val. FPGA latencies besides.",
        ("accel_nasbench.csv.gz",),
        readers.read_accel_nasbench,
    ),
    PublicSet(
        "hat",
        "translation transformers (embedding, feed-forward, heads, layers) on a Xeon: seconds of "
        "encoder, decoder and both",
        _MIT,
        "github.com/mit-han-lab/hardware-aware-transformers",
        "Wang et al., HAT, ACL 2020",
        "Means over repeats whose standard deviation is about 3 %.",
        ("hat_wmt14enfr_xeon.csv.gz",),
        readers.read_transformers,
    ),
    PublicSet(
        "help",
        "the networks of NAS-Bench-201 on thirteen devices: seconds",
        _MIT,
        "github.com/HayeonLee/HELP",
        "Lee et al., HELP, NeurIPS 2021",
        "samsung_s7, essential_ph_1, samsung_a50 and pixel2 are timed in whole milliseconds.",
        ("help_nasbench201.csv.gz",),
        readers.read_architecture_latencies,
    ),
    PublicSet(
        "mlperf",
        "MobileNet V1 and V2 at 4 to 6 width multipliers and 4 to 5 resolutions on Raspberry Pi 4, "
        "Jetson AGX Xavier and Orin, fp32 and int8: joules per query by wall meter and seconds",
        _APACHE,
        "github.com/mlcommons/cm4mlperf-results",
        "MLPerf Inference v2.0 to v3.1, open division, SingleStream, submitters Krai and cTuning",
        "Energy is that of the whole board, idle included; latency is the 90th percentile. A table "
        "is one platform and number format: one board and runtime can mix builds.",
        ("mlperf_mobilenets.csv.gz", "mlperf_layers.csv.gz"),
        readers.read_mlperf,
    ),
    PublicSet(
        "netadapt",
        "AlexNet's layers on a V100 over grids of input and output channels, batch 128, fp32 "
        "PyTorch: seconds, and joules from nvidia-smi",
        _MIT,
        "github.com/nmsafiri/8200Project (on denru01/netadapt)",
        "Yang et al., NetAdapt, ECCV 2018; measurements of 8200Project",
        "Energy is gross and from another campaign than latency; layers below 0.3 ms carry a floor "
        "of about 0.05 J.",
        ("netadapt_v100_alexnet.csv.gz",),
        readers.read_layer_grids,
    ),
    PublicSet(
        "proxyless",
        "operators of ProxylessNAS on a Pixel 1: seconds",
        _MIT,
        "github.com/mit-han-lab/proxylessnas",
        "Cai et al., ProxylessNAS, ICLR 2019",
        "72 operators; means of 949 runs.",
        ("proxyless_pixel1.csv.gz",),
        readers.read_operators,
    ),
    PublicSet(
        "tfnas",
        "inverted bottleneck blocks with varying inner width on a Xeon 6130 (one thread) and a "
        "Titan RTX (batch 32): seconds",
        _MIT,
        "github.com/AberHu/TF-NAS",
        "Hu et al., TF-NAS, ECCV 2020",
        "Inner widths are multiples of 8.",
        ("tfnas_width_knots.csv.gz",),
        readers.read_blocks,
    ),
    PublicSet(
        "tinynas",
        "convolutions in TensorRT on a V100, fp32, fp16 and int8, batch 1 to 128: seconds",
        _APACHE,
        "github.com/alibaba/lightweight-neural-architecture-search",
        "Lin et al., TinyNAS",
        "A stratified sample of 30,000 of 274,970 rows.",
        ("tinynas_v100_sample.csv.gz",),
        readers.read_convolutions,
    ),
)
_BY_NAME = {item.name: item for item in _SETS}


def names() -> tuple[str, ...]:
    """Return the names of all sets, sorted."""
    return tuple(_BY_NAME)


def about(name: str) -> PublicSet:
    """Return what a set is, with licence and citation.

    Raises:
        InputError: There is no such set.
    """
    if name not in _BY_NAME:
        raise InputError(f"there is no public set '{name}'; known: {', '.join(names())}")
    return _BY_NAME[name]


def load(name: str) -> dict[str, CostTable]:
    """Return the tables of a set by name (a layer, a platform, a device), costs in SI units.

    Raises:
        InputError: There is no such set.
    """
    chosen = about(name)
    return chosen.reader(*(_DATA / file for file in chosen.files))
