"""A campaign's settings in a TOML file, which the command line overrides."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import fields
from os import PathLike
from types import MappingProxyType
from typing import Any

from joulemap import InputError
from joulemap.regular_files import read_text

from ...datasets import JudgementSettings
from .protocol import Protocol
from .settings import CampaignSettings, problem_of

MAX_BYTES = 1 << 20
PROTOCOL, JUDGEMENT = "protocol", "judgement"
# What options are called that have another name in a file.
OPTION_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "device": "url",
        "from": "sources",
        "input": "inputs",
        "max_temperature": "max_temperature_c",
        "model": "network",
        "multiple": "multiples",
        "time_cap": "time_cap_s",
        "visit_s": "max_visit_s",
    }
)
# What the user permits is asked for each time, and what comes afterwards is no setting.
COMMAND_LINE_ONLY = ("accept_new_host_key", "allow_code", "clean", "config", "dry_run", "json")
_KINDS: Mapping[str, tuple[tuple[type, ...], str, str]] = MappingProxyType(
    {
        "int": ((int,), "a whole number", "3"),
        "float": ((int, float), "a number", "0.5"),
        "bool": ((bool,), "true or false", "true"),
        "str": ((str,), "a text", '"..."'),
    }
)


def read_settings(path: str | PathLike[str]) -> dict[str, Any]:
    """Return the settings that a TOML file gives, by name, each checked.

    `protocol` and `judgement` are dictionaries.

    Args:
        path: A file of `key = value` lines, named as the arguments of `CampaignSettings`, and tables
            `[protocol]` of `Protocol`'s and `[judgement]` of `JudgementSettings`'.

    Raises:
        InputError: It cannot be read, has an unknown key, or a value that none can have.
    """
    try:
        content: dict[str, Any] = tomllib.loads(read_text(path, MAX_BYTES))
    except FileNotFoundError:
        raise InputError(
            f"there is no file {path}; --config wants a campaign's TOML file"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read as settings: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as TOML: {error}") from error
    known = [item.name for item in fields(CampaignSettings)]
    in_protocol = [item.name for item in fields(Protocol)]
    for name, value in content.items():
        if name not in known:
            raise InputError(f"{path}: {_unknown(name, known, in_protocol)}")
        if name not in (PROTOCOL, JUDGEMENT) and (problem := problem_of(name, value)):
            raise InputError(f"{path}: {problem}")
    protocol = content.get(PROTOCOL, {})
    if not isinstance(protocol, dict):
        raise InputError(f"{path}: protocol is no table; write its keys under a line [protocol]")
    _check_protocol(protocol, path)
    if JUDGEMENT in content:
        _judgement(content, f"{path}: ")
    return content


def settings_of(
    content: Mapping[str, Any], path: str | PathLike[str] | None, **given: Any
) -> CampaignSettings:
    """Return the settings of a file, with what else is given in its place.

    Args:
        content: What `read_settings` returned, or nothing.
        path: The file, for messages; None where there is none.
        given: What overrides the file, by name; `protocol` is a dictionary here too.

    Raises:
        InputError: The network or the folder is missing, or the settings exclude each other.
    """
    merged = {**content, **given}
    merged[PROTOCOL] = {**content.get(PROTOCOL, {}), **given.get(PROTOCOL, {})}
    # One says how many, the other says which: what is given last counts.
    for name, other in (("samples", "widths"), ("widths", "samples")):
        if given.get(name) is not None and other not in given:
            merged.pop(other, None)
    where = "" if path is None else f"{path}: "
    for name, what, option in (
        ("network", "network", "--network NAME"),
        ("out", "folder", "--out FOLDER"),
    ):
        if merged.get(name) is None:
            line = f', or {name} = "..." in the file' if path is not None else ""
            raise InputError(f"{where}the {what} is missing; write {option}{line}")
    if isinstance(merged.get("resolution"), list):
        merged["resolution"] = tuple(merged["resolution"])
    for name in ("sources", "inputs", "freeze"):
        merged[name] = tuple(str(each) for each in merged.get(name) or ())
    if path is not None:
        # What is wrong with what was given is not told of the file.
        alone: dict[str, Any] = {"network": "-", "out": "-", **given, "sources": ()}
        alone[PROTOCOL] = Protocol(**given.get(PROTOCOL, {}))
        if not {"samples", "widths"} & set(given):
            alone["samples"] = 1
        CampaignSettings(**alone)
    try:
        protocol = Protocol(**merged.pop(PROTOCOL))
        judgement = _judgement(merged)
        return CampaignSettings(**{**merged, JUDGEMENT: judgement}, protocol=protocol)
    except InputError as error:
        raise InputError(f"{where}{error.full_text}") from error


def _judgement(content: Mapping[str, Any], where: str = "") -> JudgementSettings:
    """Return the judgement that settings hold as a table, the default without one."""
    try:
        return JudgementSettings.from_dict(content.get(JUDGEMENT, {}))
    except InputError as error:
        raise InputError(f"{where}under [{JUDGEMENT}]: {error.full_text}") from error


def _check_protocol(content: Mapping[str, Any], path: str | PathLike[str]) -> None:
    types = {item.name: str(item.type) for item in fields(Protocol)}
    for name, value in content.items():
        if name not in types:
            raise InputError(f"{path}: {_unknown(name, [], types)}")
        kinds, words, example = _KINDS[types[name].partition(" |")[0]]
        # Python's True is a number, TOML's is not.
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            shown = str(value)[:60]
            raise InputError(
                f"{path}: protocol {name} is {shown!r}; it must be {words}, such as {name} = {example} "
                "under [protocol]"
            )
    try:
        Protocol(**content)
    except InputError as error:
        raise InputError(f"{path}: {error.full_text}") from error


def _unknown(name: str, known: Collection[str], in_protocol: Collection[str]) -> str:
    """Return that there is no such key, and which was meant."""
    plain = name.replace("-", "_").lower()
    text = f"unknown key '{name[:60]}'"
    if plain in COMMAND_LINE_ONLY:
        return f"{text}; that is asked for each time: write it on the command line"
    meant = OPTION_KEYS.get(plain, plain)
    for names, place in ((known, ""), (in_protocol, " under [protocol]")):
        if meant in names:
            return f"{text}; did you mean '{meant}'{place}?"
    near = difflib.get_close_matches(plain, [*known, *in_protocol], n=1, cutoff=0.6)
    if not near:
        listed = ", ".join(known or in_protocol)
        return f"{text}; known: {listed}"
    place = "" if near[0] in known else " under [protocol]"
    return f"{text}; did you mean '{near[0]}'{place}?"
