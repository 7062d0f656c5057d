"""A network's graph with sizes as polynomials in the widths: what travels to the device."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from joulemap import InputError

from ...device_agents.onboard.model.materialise import Materialiser
from ...device_agents.onboard.model.onnx_messages import ATTRIBUTE_TYPES, DATA_TYPES

DTYPES = {code: name for name, code in DATA_TYPES.items()}
ATTRIBUTE_KINDS = {code: name for name, code in ATTRIBUTE_TYPES.items()}


@dataclass(frozen=True)
class Template:
    """A network's graph with sizes as polynomials in the widths, without weights.

    Attributes:
        content: What the JSON holds.
    """

    content: Mapping[str, Any]

    def to_json(self) -> str:
        """Return the template as canonical JSON: sorted keys, no spaces."""
        return json.dumps(self.content, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Template:
        """Return the template that `to_json` wrote, checked.

        Raises:
            InputError: It is damaged or of another version.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the template cannot be read: {error}") from error
        if not isinstance(content, dict):
            raise InputError(f"the template cannot be read: it is a {type(content).__name__}")
        template = cls(content)
        template.materialiser()
        return template

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of the JSON."""
        return sha256(self.to_json().encode()).hexdigest()

    def materialiser(self) -> Materialiser:
        """Return what fills the template in, the same code that runs on the device.

        Raises:
            InputError: The template is damaged or of another version.
        """
        try:
            return Materialiser(dict(self.content))
        except ValueError as error:
            raise InputError(str(error)) from error


def base64_of(array: np.ndarray[Any, Any]) -> str:
    """Return the values of an array as a template holds them: little-endian, in base64."""
    little = array.astype(array.dtype.newbyteorder("<"))
    return b64encode(little.tobytes()).decode()
