"""Networks as data and as torch modules: the zoo, outside factories, a builder for specs."""

from .definition import NetworkDefinition
from .graph.channel_groups import ChannelGroup, ChannelMember, channel_groups
from .graph.current_widths import channels_of, widths_of
from .graph.shrinking import shrink
from .registry import build, from_module, get, names, register
from .spec_builder import SpecBuilder

__all__ = [
    "ChannelGroup",
    "ChannelMember",
    "NetworkDefinition",
    "SpecBuilder",
    "build",
    "channel_groups",
    "channels_of",
    "from_module",
    "get",
    "names",
    "register",
    "shrink",
    "widths_of",
]
