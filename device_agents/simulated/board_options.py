"""What a simulated board has and does: options of its URL and of its program."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from joulemap import InputError

from .board_model import PowerModel

# What a board can be equipped with, and what that is.
EQUIPMENT: Mapping[str, str] = {
    "rapl": "RAPL counters of a package and its cores by powercap, 1 kHz",
    "dram": "a RAPL counter of the memory",
    "psys": "a RAPL counter of the whole board",
    "ina219": "an INA219 by hwmon that measures the whole board",
    "ina3221": "an INA3221 with the rails of a Jetson Orin by hwmon",
    "battery": "the battery of a phone by power_supply, a slow averaged gauge",
    "laptop": "the battery of a laptop by power_supply, with power_now and energy_now",
    "odpm": "on-device power rails of a Pixel by iio, accumulated",
}


@dataclass(frozen=True)
class BoardOptions:
    """What a simulated board has and does.

    Args:
        meter: Names in `EQUIPMENT`, separated by commas.
        idle_w: Power without work.
        active_w: Power on top of it for each busy core.
        noise: Standard deviation of a sampler's relative error; its own when None.
        update_s: Time between two updates of every meter; its own when None.
        averaging_s: Length of time over which samplers average; their own when None.
        flicker: Standard deviation of the idle power, relative.
        flicker_s: How often the idle power is drawn anew.
        range_j: Where counters start again at 0; their own when None.
        seed: Of everything random.

    Raises:
        InputError: A value makes no sense.
    """

    meter: str = "rapl"
    idle_w: float = 2.0
    active_w: float = 5.0
    noise: float | None = None
    update_s: float | None = None
    averaging_s: float | None = None
    flicker: float = 0.01
    flicker_s: float = 0.2
    range_j: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.equipment if name not in EQUIPMENT]
        if unknown or len(set(self.equipment)) < len(self.equipment):
            problem = f"unknown meter '{unknown[0]}'" if unknown else "the same meter twice"
            raise InputError(
                f"{problem} for a simulated board; write some of: {', '.join(EQUIPMENT)}, "
                "separated by commas"
            )
        for name, least, most in (
            ("idle_w", 0.0, 1e4),
            ("active_w", 0.0, 1e4),
            ("noise", 0.0, 1.0),
            ("update_s", 1e-4, 60.0),
            ("averaging_s", 0.0, 60.0),
            ("flicker", 0.0, 1.0),
            ("flicker_s", 0.005, 60.0),
            ("range_j", 0.1, 1e9),
        ):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and least <= value <= most):
                raise InputError(f"a simulated board's {name} {value} is not in {least} to {most}")
        if not 0 <= self.seed < 10**18:
            raise InputError(f"a simulated board's seed {self.seed} is not a number of 0 or more")

    @property
    def equipment(self) -> tuple[str, ...]:
        """The names in `meter`."""
        return tuple(self.meter.split(","))

    @property
    def power_model(self) -> PowerModel:
        """What the board uses."""
        return PowerModel(
            idle_w=self.idle_w,
            active_w=self.active_w,
            flicker_share=self.flicker,
            flicker_s=self.flicker_s,
        )

    @classmethod
    def parse(cls, pairs: Mapping[str, str]) -> BoardOptions:
        """Return the options that texts say.

        Raises:
            InputError: An unknown option, no number, or a value that makes no sense.
        """
        names = [field.name for field in fields(cls)]
        unknown = sorted(set(pairs) - set(names))
        if unknown:
            raise InputError(
                f"a simulated board has no option '{unknown[0]}'; known: {', '.join(names)}"
            )
        values: dict[str, str | float | int] = {}
        for name, text in pairs.items():
            if name == "meter":
                values[name] = text
                continue
            try:
                values[name] = int(text) if name == "seed" else float(text)
            except ValueError:
                raise InputError(f"a simulated board's {name} '{text}' is not a number") from None
        return cls(**values)  # type: ignore[arg-type]

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield (name, text) of every option that is not left open, as `parse` reads them."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                yield field.name, str(value)
