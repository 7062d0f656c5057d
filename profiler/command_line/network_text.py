"""What `joulemap networks` prints: the zoo, or the width space of one network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...datasets import NetworkSpec
from .. import networks
from ..networks.graph import derived_of, is_known
from ..networks.graph.frozen_sizes import frozen_sizes
from . import console

# Names that a cell shows.
SHOWN = 3
MAX_REASONS = 12


def print_zoo(*, as_json: bool) -> None:
    """Print the networks that joulemap has by name."""
    rows = []
    for name in networks.names():
        spec = networks.get(name)
        whole = spec.at(spec.max_widths)
        rows.append((name, len(spec.widths), spec.input_shape, whole.macs, whole.params))
    if as_json:
        keys = ("name", "widths", "input_shape", "macs", "parameters")
        console.print_json([dict(zip(keys, row, strict=True)) for row in rows])
        return
    console.print_table(
        "Networks of the zoo",
        ("network", "widths", "input", "MACs", "parameters"),
        [
            (name, str(count), "x".join(map(str, shape)), f"{macs / 1e6:,.1f} M", f"{params:,}")
            for name, count, shape, macs, params in rows
        ],
    )


def print_network(
    model: str,
    resolution: int | None,
    inputs: Sequence[str],
    freeze: Sequence[str],
    multiples: Mapping[str, int],
    *,
    as_json: bool,
) -> None:
    """Print a network's width space.

    Args:
        model: What `networks.get` takes.
        resolution: Height and width of its input.
        inputs: Shapes of its inputs.
        freeze: Patterns of what keeps its size.
        multiples: Pattern of widths to a number that they shall be multiples of.
        as_json: Print JSON in place of tables.
    """
    spec = networks.get(model, resolution, inputs=inputs, freeze=freeze, multiples=multiples)
    whole = spec.at(spec.max_widths)
    rows = width_rows(spec)
    frozen = frozen_rows(spec)
    if as_json:
        console.print_json(
            {
                "name": spec.name,
                "source": spec.source,
                "input_shape": spec.input_shape,
                "macs": whole.macs,
                "parameters": whole.params,
                "widths": rows,
                "frozen": [{"reason": reason, "parameters": names} for reason, names in frozen],
            }
        )
        return
    size = "x".join(map(str, spec.input_shape))
    console.print_table(
        f"{spec.name}: {len(spec.widths)} widths, {len(spec.layers)} layers, "
        f"{whole.macs / 1e6:,.1f} M MACs, {whole.params:,} parameters, input {size}",
        ("width", "range", "steps of", "made by", "read by", "MACs"),
        [
            (
                row["name"],
                f"{row['min']}..{row['max']}",
                str(row["multiple"]),
                _some(row["made_by"]),
                _some(row["read_by"]),
                f"{100 * row['macs_share']:.1f} %",
            )
            for row in rows
        ],
        has_numbers=False,
    )
    if frozen:
        console.print_line("\nSizes that stay:")
        for reason, names in frozen[:MAX_REASONS]:
            console.print_line(f"  {_some(names)}: {reason}")


def width_rows(spec: NetworkSpec) -> list[dict[str, Any]]:
    """Return for each width its range, the layers that make and read it, and their share of the MACs.

    Args:
        spec: Any network.
    """
    whole = spec.at(spec.max_widths)
    rows = []
    for width in spec.widths:
        made, read, macs = [], [], 0
        for layer, resolved in zip(spec.layers, whole.layers, strict=True):
            is_maker = width.name in layer.out_channels.names
            is_reader = width.name in layer.in_channels.names
            if resolved.macs or layer.kind == "embedding":
                if is_maker and not (is_reader and not resolved.params):
                    made.append(layer.name)
                if is_reader:
                    read.append(layer.name)
                if is_maker or is_reader:
                    macs += resolved.macs
        rows.append(
            {
                "name": width.name,
                "min": width.min,
                "max": width.max,
                "multiple": width.multiple,
                "made_by": made,
                "read_by": read,
                "macs_share": macs / max(1, whole.macs),
            }
        )
    return rows


def frozen_rows(spec: NetworkSpec) -> list[tuple[str, list[str]]]:
    """Return why sizes stay, and the parameters that have them; nothing of a spec written by hand.

    Args:
        spec: Any network.
    """
    if not is_known(spec):
        return []
    found: dict[str, list[str]] = {}
    for item in frozen_sizes(derived_of(spec).space.solution):
        found.setdefault(item.reason, []).append(f"{item.parameter} ({item.size})")
    return sorted(found.items(), key=lambda item: -len(item[1]))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
