"""A request on its way through the keeper."""

from __future__ import annotations

from typing import Any

from ..agent_child import Stream

DEFAULT_LIMIT_S = 600.0


class Job:
    """A request on its way to the agent.

    Args:
        request: Its header.
        payload: Its bytes.
        host: Who is told the answer; None for the keeper's own and for visits, whose answer is
            owed to whoever asked last.
    """

    def __init__(self, request: dict[str, Any], payload: bytes, host: Stream | None) -> None:
        self.operation = str(request.get("op"))
        self.key = str(request["key"]) if self.operation == "visit" else None
        self.request, self.payload, self.host = request, payload, host
        self.limit_s = float(request.get("limit_s") or DEFAULT_LIMIT_S)
        self.deaths = 0

    @property
    def needs_preparation(self) -> bool:
        """Whether the agent must have been prepared before."""
        return self.operation in ("visit", "layers")

    def is_same_as(self, request: dict[str, Any]) -> bool:
        """Return whether a `prepare` request is this one again."""
        digest = self.request.get("digest")
        return self.operation == "prepare" and digest is not None and digest == request["digest"]
