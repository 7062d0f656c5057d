"""Readers of the kinds of tables in which others publish measurements, as CostTables.

Each takes files as their authors published them (CSV, plain or gzip), of any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from joulemap import InputError

from ..cost_table import CostTable
from ..csv_file import csv_content

_Path = str | PathLike[str]
LAYER_QUANTITIES = (
    "macs",
    "first_conv_macs",
    "depthwise_macs",
    "parameters",
    "output_elements",
    "layers",
)
MIN_ROWS = 20


def read_layer_grids(path: _Path) -> dict[str, CostTable]:
    """Return a table for each layer: in_channels and out_channels to joules and seconds.

    Args:
        path: Columns net, layer, cin, cout, energy_J, latency_s.

    Raises:
        InputError: No such file, or other columns.
    """
    frame = _read(path, ("net", "layer", "cin", "cout", "energy_J", "latency_s"))
    tables = {}
    for (network, layer), rows in frame.groupby(["net", "layer"], sort=True):
        features = _numbers(rows[["cin", "cout"]], ["in_channels", "out_channels"], path)
        cost = pd.DataFrame({"latency_s": rows["latency_s"], "energy_gross_j": rows["energy_J"]})
        tables[f"{network}.{layer}"] = _table(features, cost, path, f"{network} {layer}")
    return tables


def read_mlperf(results: _Path, layers: _Path) -> dict[str, CostTable]:
    """Return a table for each platform and number format: sums over layers to joules, seconds.

    Args:
        results: Columns platform, precision, family, width, resolution, ss_energy_mJ, ss_lat_ms.
        layers: One row per layer of each network: family, width, resolution, idx, type (conv,
            dwconv or fc), macs, params, out_elems.

    Raises:
        InputError: No such file, or other columns.
    """
    keys = ["family", "width", "resolution"]
    needed = [*keys, "idx", "type", "macs", "params", "out_elems"]
    by_layer = _read(layers, needed)
    sums = []
    for key, rows in by_layer.groupby(keys):
        is_first, is_depthwise = rows["idx"] == 0, rows["type"] == "dwconv"
        values = (
            rows["macs"][~is_first & ~is_depthwise].sum(),
            rows["macs"][is_first].sum(),
            rows["macs"][is_depthwise].sum(),
            rows["params"].sum(),
            rows["out_elems"].sum(),
            len(rows),
        )
        sums.append((*key, *values))
    networks = pd.DataFrame(sums, columns=[*keys, *LAYER_QUANTITIES])
    frame = _read(results, ["platform", "precision", *keys, "ss_energy_mJ", "ss_lat_ms"])
    frame = frame.merge(networks, on=keys).dropna(subset=["ss_energy_mJ"])
    tables = {}
    for (platform, precision), rows in frame.groupby(["platform", "precision"], sort=True):
        if len(rows) < MIN_ROWS:
            continue
        cost = pd.DataFrame(
            {
                "energy_gross_j": rows["ss_energy_mJ"] * 1e-3,
                "latency_p90_s": rows["ss_lat_ms"] * 1e-3,
            }
        )
        features = _numbers(rows[list(LAYER_QUANTITIES)], LAYER_QUANTITIES, results)
        name = f"{platform}/{precision}"
        tables[name] = _table(features, cost, results, name, rows[keys])
    return tables


def read_convolutions(path: _Path) -> dict[str, CostTable]:
    """Return a table for each number format and batch: convolution geometry to seconds.

    Args:
        path: Columns precision, conv_type (Regular or Depthwise), batch, cin, h_in, w_in, cout,
            kernel, stride, elmt_fused, latency_ms.

    Raises:
        InputError: No such file, or other columns.
    """
    names = ["cin", "h_in", "w_in", "cout", "kernel", "stride", "elmt_fused"]
    frame = _read(path, ["precision", "conv_type", "batch", *names, "latency_ms"])
    frame["is_depthwise"] = (frame["conv_type"] == "Depthwise").astype(float)
    groups = np.where(frame["is_depthwise"] > 0, frame["cin"], 1)
    area = np.ceil(frame["h_in"] / frame["stride"]) * np.ceil(frame["w_in"] / frame["stride"])
    frame["parameters"] = frame["cin"] * frame["cout"] * frame["kernel"] ** 2 / groups
    frame["macs"] = frame["parameters"] * area
    columns = ["is_depthwise", *names, "macs", "parameters"]
    tables = {}
    for (precision, batch), rows in frame.groupby(["precision", "batch"], sort=True):
        features = _numbers(rows[columns], columns, path)
        cost = pd.DataFrame({"latency_s": rows["latency_ms"] * 1e-3})
        name = f"{precision}/{batch}"
        tables[name] = _table(features, cost, path, name)
    return tables


def read_blocks(path: _Path) -> dict[str, CostTable]:
    """Return a table for each device: geometry of inverted bottleneck blocks to seconds.

    Args:
        path: Columns device, block, h_in, cin, mid_channels, se_channels, cout, kernel, stride,
            act (relu or swish), latency_ms.

    Raises:
        InputError: No such file, or other columns.
    """
    names = ["h_in", "cin", "mid_channels", "se_channels", "cout", "kernel", "stride"]
    frame = _read(path, ["device", "block", *names, "act", "latency_ms"])
    frame["is_swish"] = (frame["act"] == "swish").astype(float)
    out = np.ceil(frame["h_in"] / frame["stride"]) ** 2
    kernels = frame["mid_channels"] * frame["kernel"] ** 2
    squeeze = 2 * frame["mid_channels"] * frame["se_channels"]
    expand, project = frame["cin"] * frame["mid_channels"], frame["mid_channels"] * frame["cout"]
    frame["macs"] = expand * frame["h_in"] ** 2 + (kernels + project) * out + squeeze
    frame["parameters"] = expand + kernels + project + squeeze
    columns = [*names, "is_swish", "macs", "parameters"]
    tables = {}
    for device, rows in frame.groupby("device", sort=True):
        features = _numbers(rows[columns], columns, path)
        cost = pd.DataFrame({"latency_s": rows["latency_ms"] * 1e-3})
        tables[str(device)] = _table(features, cost, path, str(device), rows[["block"]])
    return tables


def read_accel_nasbench(path: _Path) -> dict[str, CostTable]:
    """Return one table: each block's configuration, 0 or 1, to seconds per image of each device.

    Args:
        path: Columns blockN_e, blockN_k, blockN_l, blockN_se for each block, macs_M, params_M,
            throughput_DEVICE in images per second, latency_DEVICE in ms, and split.

    Raises:
        InputError: No such file, or other columns.
    """
    frame = _read(path, ["block0_e", "macs_M", "params_M", "split"])
    frame = frame.dropna(subset=["split"]).reset_index(drop=True)
    blocks = sorted({name.split("_")[0] for name in frame.columns if name.startswith("block")})
    choices = {
        block: frame[[name for name in frame.columns if name.startswith(f"{block}_")]]
        .astype(str)
        .agg("-".join, axis=1)
        for block in blocks
    }
    features = pd.get_dummies(pd.DataFrame(choices), prefix_sep="=", dtype=np.float64)
    cost = {}
    for column in frame.columns:
        kind, _, device = column.partition("_")
        if column.endswith("_std"):
            continue
        if kind == "throughput":
            cost[f"{device}_per_image_s"] = 1.0 / frame[column]
        elif kind == "latency":
            cost[f"{device}_latency_s"] = frame[column] * 1e-3
    labels = pd.DataFrame(
        {
            "split": frame["split"],
            "macs": frame["macs_M"] * 1e6,
            "parameters": frame["params_M"] * 1e6,
        }
    )
    return {"networks": _table(features, pd.DataFrame(cost), path, "networks", labels)}


def read_architecture_latencies(path: _Path) -> dict[str, CostTable]:
    """Return one table: each edge's operation, 0 or 1, to the seconds of every device.

    Args:
        path: Columns idx, arch_str (cells of NAS-Bench-201), and one column of ms per device.

    Raises:
        InputError: No such file, or other columns.
    """
    frame = _read(path, ["idx", "arch_str"])
    edges = frame["arch_str"].str.findall(r"([a-z_0-9]+)~\d")
    counts = edges.map(len)
    if counts.nunique() != 1:
        raise InputError(f"{path} has cells with {counts.min()} to {counts.max()} edges")
    choices = pd.DataFrame(edges.tolist()).add_prefix("edge")
    features = pd.get_dummies(choices, prefix_sep="=", dtype=np.float64)
    devices = [name for name in frame.columns if name not in ("idx", "arch_str")]
    cost = pd.DataFrame({f"{name}_s": frame[name] * 1e-3 for name in devices})
    return {"cells": _table(features, cost, path, "cells", frame[["arch_str"]])}


def read_transformers(path: _Path) -> dict[str, CostTable]:
    """Return one table: a transformer's sizes to the seconds of encoder, decoder and both.

    Args:
        path: Sizes of encoder and decoder, latency_mean_encoder and latency_mean_decoder in ms,
            latency_std_encoder and latency_std_decoder.

    Raises:
        InputError: No such file, or other columns.
    """
    frame = _read(path, ["latency_mean_encoder", "latency_mean_decoder"])
    columns = [name for name in frame.columns if not name.startswith("latency_")]
    cost = pd.DataFrame(
        {
            "encoder_s": frame["latency_mean_encoder"] * 1e-3,
            "decoder_s": frame["latency_mean_decoder"] * 1e-3,
        }
    )
    cost["latency_s"] = cost["encoder_s"] + cost["decoder_s"]
    features = _numbers(frame[columns], columns, path)
    return {"transformers": _table(features, cost, path, "transformers")}


def read_operators(path: _Path) -> dict[str, CostTable]:
    """Return one table: an operator's geometry to seconds; what an operator lacks is 0.

    Args:
        path: Columns op, h_in, cin, h_out, cout, expand, kernel, stride, idskip, mean_ms.

    Raises:
        InputError: No such file, or other columns.
    """
    names = ["h_in", "cin", "h_out", "cout", "expand", "kernel", "stride", "idskip"]
    frame = _read(path, ["op", *names, "mean_ms"])
    # A plain convolution or classifier has no expansion: it is an operator of its own kind.
    features = _numbers(frame[names].fillna(0.0), names, path)
    cost = pd.DataFrame({"latency_s": frame["mean_ms"] * 1e-3})
    return {"operators": _table(features, cost, path, "operators", frame[["op"]])}


def _read(path: _Path, needed: Sequence[str]) -> pd.DataFrame:
    try:
        frame = pd.read_csv(csv_content(path))
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except InputError:
        raise
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read as a CSV table: {error}") from error
    if missing := [name for name in needed if name not in frame.columns]:
        raise InputError(f"{path} has no column '{missing[0]}'; it needs {', '.join(needed)}")
    if frame.empty:
        raise InputError(f"{path} has no rows")
    return frame


def _numbers(frame: pd.DataFrame, names: Sequence[str], path: _Path) -> pd.DataFrame:
    try:
        values = frame.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} has a value that is no number: {error}") from error
    if not np.isfinite(values).all():
        raise InputError(f"{path} has missing or infinite values among {', '.join(names)}")
    return pd.DataFrame(values, columns=list(names), index=frame.index)


def _table(
    features: pd.DataFrame,
    cost: pd.DataFrame,
    path: _Path,
    name: str,
    labels: pd.DataFrame | None = None,
) -> CostTable:
    return CostTable(
        features,
        cost,
        labels=labels if labels is not None else pd.DataFrame(),
        source=Path(path).name,
        name=name,
    )
