"""The settings that a `joulemap profile` asks for: what was typed, before what a file says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import typer

from joulemap import InputError

from ..campaign.settings import CampaignSettings
from ..campaign.settings_file import PROTOCOL, read_settings, settings_of

# Width vectors where neither file nor command line says how many.
SAMPLES = 100
SETTINGS = frozenset(
    {
        "batch",
        "freeze",
        "inputs",
        "layers",
        "lock_frequency",
        "meter",
        "multiples",
        "network",
        "out",
        "precision",
        "resolution",
        "runtime",
        "samples",
        "sampling",
        "seed",
        "sources",
        "threads",
        "url",
    }
)
# Fields of the protocol by option.
IN_PROTOCOL: Mapping[str, str] = MappingProxyType(
    {
        "energy_rel_error": "energy_rel_error",
        "energy_window_s": "energy_window_s",
        "max_energy_window_s": "max_energy_window_s",
        "max_temperature": "max_temperature_c",
        "rel_error": "rel_error",
        "temperature_zone": "temperature_zone",
        "time_cap": "time_cap_s",
        "visit_s": "max_visit_s",
        "visits": "visits",
    }
)


def typed(context: typer.Context) -> dict[str, Any]:
    """Return the options and arguments that the user typed, by name, without defaults."""
    found = {}
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            found[name] = value
    return found


def multiple_of(text: str) -> tuple[str, int]:
    """Return the pattern and the number of a typed `PATTERN=N`.

    Raises:
        InputError: It is none.

    Example:
        >>> multiple_of("layer1.*=8")
        ('layer1.*', 8)
    """
    pattern, _, number = text.rpartition("=")
    if not pattern or not number.isascii() or not number.isdigit() or int(number) < 1:
        raise InputError(
            f"--multiple is '{text[:60]}'; write PATTERN=N, such as --multiple 'layer1*=8'"
        )
    return pattern, int(number)


def asked_settings(config: Path | None, options: Mapping[str, Any]) -> CampaignSettings:
    """Return a campaign's settings.

    Args:
        config: A TOML file of settings, or None.
        options: What was typed, by name; it counts before the file.

    Raises:
        InputError: Device, network or folder is missing in both, or a value is none that can be.
    """
    content = read_settings(config) if config is not None else {}
    given: dict[str, Any] = {name: options[name] for name in SETTINGS & set(options)}
    if "multiples" in given:
        given["multiples"] = dict(map(multiple_of, given["multiples"]))
    given[PROTOCOL] = {
        field: options[name] for name, field in IN_PROTOCOL.items() if name in options
    }
    if "url" not in {**content, **given}:
        line = f', or url = "..." in {config}' if config is not None else ""
        raise InputError(f"the device is missing; write its URL, such as local:{line}")
    if not {"samples", "widths"} & {*content, *given}:
        given["samples"] = SAMPLES
    return settings_of(content, config, **given)
