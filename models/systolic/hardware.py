"""The hardware that the analytic systolic-array model computes energies for."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

from joulemap import InputError
from joulemap.regular_files import read_text

MAX_BYTES = 1 << 20
MAX_VALUE = 1e30


@dataclass(frozen=True)
class SystolicHardware:
    """A systolic array with two caches, and what an access or an operation costs on it.

    Energies are relative to one 16-bit multiply-accumulate without its register accesses, unless
    `joule_per_mac` says what that is.

    Source: Yang, Zhu, Liu, "Energy-Constrained Compression for Deep Neural Networks via Weighted
    Sparse Projection and Layer Input Masking", ICLR 2019; its released code.

    Args:
        name: What reports call it.
        rows: Rows of the array, m: output positions that share a weight.
        columns: Columns of the array, n: outputs that share an input.
        input_cache_bytes: Cache of inputs.
        weight_cache_bytes: Cache of weights.
        word_bytes: Size of a number.
        mac_energy: A multiply-accumulate with its register read and write of the partial sum.
        memory_energy: An access to main memory, for one number.
        cache_energy: An access to a cache, for one number.
        register_energy: An access to a register, for one number.
        joule_per_mac: Joules of one unit of energy; None where only ratios are known.
        clock_hz: Clock frequency; None where only cycles are known.
        memory_bytes_per_cycle: Bandwidth of main memory; None for one that never limits.

    Raises:
        InputError: A value that no hardware has.
    """

    name: str = "eyeriss"
    rows: int = 12
    columns: int = 14
    input_cache_bytes: int = 102_400
    weight_cache_bytes: int = 8_192
    word_bytes: int = 2
    mac_energy: float = 3.0
    memory_energy: float = 200.0
    cache_energy: float = 6.0
    register_energy: float = 1.0
    joule_per_mac: float | None = None
    clock_hz: float | None = None
    memory_bytes_per_cycle: float | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "name":
                if not isinstance(value, str) or not value:
                    raise InputError(f"name of the hardware is {value!r}, not a text")
            elif value is None and item.default is None:
                continue
            elif isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"{item.name} of '{self.name}' is {value!r}, not a number")
            elif not 0 < value <= MAX_VALUE:
                raise InputError(
                    f"{item.name} of '{self.name}' is {str(value)[:50]}; it must be above 0 and at most "
                    f"{MAX_VALUE:g}"
                )
            elif item.type == "int" and not isinstance(value, int):
                raise InputError(f"{item.name} of '{self.name}' is {value}, not a whole number")
        for cache in ("input_cache_bytes", "weight_cache_bytes"):
            if getattr(self, cache) < self.word_bytes:
                raise InputError(
                    f"{cache} of '{self.name}' is {getattr(self, cache)}, less than one number of "
                    f"{self.word_bytes} bytes"
                )

    @property
    def input_cache(self) -> int:
        """Numbers that the cache of inputs holds, s1."""
        return self.input_cache_bytes // self.word_bytes

    @property
    def weight_cache(self) -> int:
        """Numbers that the cache of weights holds, s2."""
        return self.weight_cache_bytes // self.word_bytes

    @property
    def unit(self) -> str:
        """Unit of the energies: 'J', or 'mac' where only ratios are known."""
        return "mac" if self.joule_per_mac is None else "J"

    @property
    def time_unit(self) -> str:
        """Unit of the times: 's', or 'cycle' where the clock is not known."""
        return "cycle" if self.clock_hz is None else "s"

    @classmethod
    def from_toml(cls, path: str | PathLike[str]) -> SystolicHardware:
        """Return the hardware that a TOML file describes; what it leaves out is Eyeriss'.

        Args:
            path: A file of `key = value` lines named as the arguments above.

        Raises:
            InputError: No such file, not TOML, duplicate or unknown keys, impossible values.
        """
        try:
            content: dict[str, Any] = tomllib.loads(read_text(path, MAX_BYTES))
        except FileNotFoundError:
            raise InputError(f"there is no file {path}") from None
        except OSError as error:
            raise InputError(f"{path} cannot be read as hardware: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise InputError(f"{path} cannot be read as hardware: {error}") from error
        return cls.from_mapping({"name": Path(path).stem} | content, source=str(path))

    @classmethod
    def from_mapping(
        cls, content: Mapping[str, Any], source: str = "the hardware"
    ) -> SystolicHardware:
        """Return the hardware of a mapping of its fields; what it leaves out is Eyeriss'.

        Args:
            content: Name of a field to its value.
            source: What an error says it comes from.

        Raises:
            InputError: Unknown keys, impossible values.
        """
        known = [item.name for item in fields(cls)]
        if unknown := sorted(set(content) - set(known)):
            raise InputError(
                f"{source} has an unknown key '{unknown[0]}'; known: {', '.join(known)}"
            )
        return cls(**content)


PRESETS = {
    # Clock: Chen, Krishna, Emer, Sze, "Eyeriss", JSSC 2017.
    "eyeriss": SystolicHardware(clock_hz=200e6),
    # Shape, clock and memory of the first TPU (Jouppi et al., ISCA 2017); relative energies as
    # Eyeriss'.
    "tpu": SystolicHardware(
        name="tpu",
        clock_hz=700e6,
        memory_bytes_per_cycle=34e9 / 700e6,
        rows=256,
        columns=256,
        input_cache_bytes=24 * 2**20,
        weight_cache_bytes=4 * 2**20,
        word_bytes=1,
    ),
}


def hardware_named(name: str) -> SystolicHardware:
    """Return a preset, or the hardware of a TOML file.

    Raises:
        InputError: Neither a preset nor a file that can be used.
    """
    if name in PRESETS:
        return PRESETS[name]
    if name.endswith(".toml"):
        return SystolicHardware.from_toml(name)
    known = ", ".join(sorted(PRESETS))
    raise InputError(f"there is no hardware '{name}'; known: {known}, or write a file FILE.toml")
