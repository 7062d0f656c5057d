"""A transport: this machine under another name."""

from __future__ import annotations

from joulemap.device_agents.transports.local import LocalTransport


class HereTransport(LocalTransport):
    """This machine, written `here:`."""
