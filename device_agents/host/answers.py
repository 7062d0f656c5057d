"""What a device answers, as results, errors and words that a terminal may be shown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from joulemap.showable_text import showable, showable_answer

from ...datasets.answer_bounds import cleaned
from ..errors import DeviceInUseError, StableDeviceError, TransientDeviceError, failure_text

MAX_MESSAGE = 2000
_MEASURING = ("visit", "layers")


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
    return believed(operation, result)


def believed(operation: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result with texts that may be shown and numbers that are possible.

    What a device says of itself has None in the place of what cannot be so. Of what is measured
    nothing counts then.

    Args:
        operation: What the agent was asked for.
        result: What it answered.

    Raises:
        TransientDeviceError: A measurement holds a number, a list or a word that cannot be.
    """
    found, problems = cleaned(operation, showable_answer(result))
    if problems and operation in _MEASURING:
        raise TransientDeviceError(
            f"{operation} failed: the device's answer makes no sense: {problems[0]}"
        )
    return dict(found)
