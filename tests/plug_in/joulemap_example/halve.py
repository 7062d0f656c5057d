"""A compressor: half of every width."""

from collections.abc import Mapping

from joulemap.datasets import NetworkSpec


def halve(spec: NetworkSpec) -> Mapping[str, int]:
    """Return half of every width's bound, by name, in channels.

    Args:
        spec: The network.
    """
    return {width.name: max(width.min, width.max // 2) for width in spec.widths}
