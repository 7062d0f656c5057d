"""What a device answers, as results, errors and words that a terminal may be shown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from joulemap.showable_text import showable

from .errors import DeviceInUseError, StableDeviceError, TransientDeviceError, failure_text

MAX_MESSAGE = 2000


def preparation_digest(request: Mapping[str, Any], payload: bytes) -> str:
    """Return what a keeper knows a preparation by, in digits of base 16."""
    text = json.dumps(request, sort_keys=True).encode()
    return hashlib.sha256(text + b"\0" + payload).hexdigest()


def result_of(operation: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result that an answer holds.

    Raises:
        DeviceError: It says "error", or holds nothing of use.
    """
    if "error" in answer:
        problem = answer["error"] if isinstance(answer["error"], dict) else {}
        said = showable(problem.get("message"), MAX_MESSAGE)
        if isinstance(other := problem.get("in_use"), Mapping):
            who = showable(other.get("holder"), MAX_MESSAGE)
            raise DeviceInUseError(who, is_ending=other.get("is_ending") is True)
        message = failure_text(operation, said)
        raise (TransientDeviceError if problem.get("is_transient") else StableDeviceError)(message)
    result = answer.get("result")
    if not isinstance(result, dict):
        raise TransientDeviceError(f"{operation} failed: the agent's answer has no result")
    return result
