"""In what two specs of one network differ: a network whose file has changed may be the same still."""

from __future__ import annotations

from .network_spec import NetworkSpec


def is_same_network(spec: NetworkSpec, other: NetworkSpec) -> bool:
    """Return whether two specs describe the same network from the same place, whatever else a file holds.

    That is so of derived specs alone, which say of each layer what the graph has. One written by hand
    may be the same although the code beside it builds another network.

    Args:
        spec: What was.
        other: What is.
    """
    is_derived = any(layer.parameters is not None for layer in spec.layers)
    return (
        is_derived
        and spec.source.partition("@")[0] == other.source.partition("@")[0]
        and spec.input_shape == other.input_shape
        and spec.widths == other.widths
        and spec.layers == other.layers
    )


def difference(spec: NetworkSpec, other: NetworkSpec) -> str | None:
    """Return the first thing in which two specs of one network differ, None if there is none.

    Args:
        spec: What was.
        other: What is.
    """
    if spec.width_names != other.width_names:
        gone = [name for name in spec.width_names if name not in other.width_names]
        if gone:
            return f"it has no width '{gone[0]}' any more"
        new = next(name for name in other.width_names if name not in spec.width_names)
        return f"it has a new width '{new}'"
    for mine, theirs in zip(spec.widths, other.widths, strict=True):
        if mine.max != theirs.max:
            return f"width '{mine.name}' was {mine.max} and is {theirs.max}"
    for layer, now in zip(spec.layers, other.layers, strict=False):
        if layer != now:
            fields = [key for key, value in vars(layer).items() if value != vars(now)[key]]
            first = fields[0]
            return (
                f"{first} of layer '{layer.name[:60]}' was {str(getattr(layer, first))[:60]} and is "
                f"{str(getattr(now, first))[:60]}"
            )
    if len(spec.layers) != len(other.layers):
        return f"it had {len(spec.layers)} layers and has {len(other.layers)}"
    return None
