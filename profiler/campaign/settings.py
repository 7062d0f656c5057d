"""What a campaign is asked to do, as one value that is checked once, wherever it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

from joulemap import InputError

from ...datasets import JudgementSettings
from ...device_agents.registry import check_meters, runtime_entry
from .protocol import Protocol
from .sampling import sampler_named

PRECISIONS = ("fp32",)
# Of a value in a message.
MAX_SHOWN = 60


@dataclass(frozen=True)
class CampaignSettings:
    """What a campaign is asked to do.

    What the user permits (code of a spec's, keys of hosts) is no setting: it is asked for each time,
    and neither a file nor a journal holds it.

    Args:
        network: What `networks.get` takes, as typed: a name of the zoo, `FILE.py:function`,
            `timm:NAME`, an ONNX file; of a spec or a function, what it comes from.
        out: Folder of the campaign.
        url: The device, such as `local:`; None for one that is open already.
        samples: How many width vectors to measure,
        widths: ... or these width vectors in channels.
        sampling: How width vectors are chosen, see `sampling.SAMPLERS`.
        seed: Of the sampler and the visits' order.
        sources: Predictor files of other devices, or those devices where the predictors are at
            hand; the samples are then those that tell most.
        runtime: What executes variants.
        batch: Samples per call.
        resolution: Height and width of the input; the network's own when None.
        inputs: Shapes of the inputs of a network without a spec, `NAME=1x3x224x224[:dtype]`.
        freeze: Patterns (`*`, `?`) of its widths or module paths that keep their sizes.
        multiples: Pattern of its widths to a number that they shall be multiples of.
        precision: Number format.
        threads: Threads inside one operator.
        lock_frequency: Hold the processor's clock while measuring, where permitted.
        meter: What energy is read from: `auto`, `none` or `NAME[:CHANNEL]`, after a comma a second
            one that checks the first.
        layers: Of how many variants to time single layers as well.
        protocol: How a variant is measured.
        judgement: What its visits are judged by.

    Raises:
        InputError: A value is of another type, out of range or unknown, or two exclude each other.

    Example:
        >>> CampaignSettings(network="lenet5", out="runs/lenet5", samples=100).protocol.visits
        3
    """

    network: str
    out: str | PathLike[str]
    url: str | None = None
    samples: int | None = None
    widths: Sequence[Sequence[int]] | None = None
    sampling: str = "sobol"
    seed: int = 0
    sources: tuple[str, ...] = ()
    runtime: str = "onnxruntime"
    batch: int = 1
    resolution: int | tuple[int, int] | None = None
    inputs: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    multiples: Mapping[str, int] = field(default_factory=dict)
    precision: str = "fp32"
    threads: int = 1
    lock_frequency: bool = False
    meter: str = "auto"
    layers: int = 0
    protocol: Protocol = field(default_factory=Protocol)
    judgement: JudgementSettings = field(default_factory=JudgementSettings)

    def __post_init__(self) -> None:
        for item in fields(self):
            if problem := problem_of(item.name, getattr(self, item.name)):
                raise InputError(problem)
        if (self.samples is None) == (self.widths is None):
            raise InputError("write either samples, a number, or widths, a list of width vectors")
        if self.sources and self.samples is None:
            raise InputError("sources choose what to measure; write samples, a number, not widths")
        sampler_named(self.sampling)
        runtime_entry(self.runtime)
        if self.url is not None:
            check_meters(self.meter)

    @property
    def folder(self) -> Path:
        """The folder of the campaign."""
        return Path(self.out)

    def to_dict(self) -> dict[str, Any]:
        """Return what a campaign's journal keeps of its settings, for JSON.

        The device's address, the folder and the predictors' files are left out: they say where
        things lay, and a campaign may be continued from elsewhere. The judgement has its own place in
        the journal.
        """
        # Left out where nothing is chosen, as in journals from before there was a choice.
        chosen: dict[str, Any] = {
            "inputs": list(self.inputs),
            "freeze": list(self.freeze),
            "multiples": dict(self.multiples),
        }
        listed = None if self.widths is None else [_plain(vector) for vector in self.widths]
        size = self.resolution
        return {
            "network": self.network,
            "samples": None if self.samples is None else int(self.samples),
            "widths": listed,
            "sampling": self.sampling,
            "seed": int(self.seed),
            "runtime": self.runtime,
            "batch": int(self.batch),
            "resolution": [int(each) for each in size] if isinstance(size, Sequence) else size,
            "precision": self.precision,
            "threads": int(self.threads),
            "lock_frequency": bool(self.lock_frequency),
            "meter": self.meter,
            "layers": int(self.layers),
            "protocol": self.protocol.to_dict(),
            **{name: value for name, value in chosen.items() if value},
        }


def _plain(vector: Sequence[int] | Mapping[str, int]) -> list[int] | dict[str, int]:
    if isinstance(vector, Mapping):
        return {name: int(value) for name, value in vector.items()}
    return [int(value) for value in vector]


@dataclass(frozen=True)
class Rule:
    """What a setting may be.

    Args:
        holds: Whether a value is allowed.
        words: What it must be, for a message.
        example: One that is, in TOML.
    """

    holds: Callable[[Any], bool]
    words: str
    example: str


def problem_of(name: str, value: object) -> str | None:
    """Return what is wrong with a setting and what to write, as a sentence; None if nothing is.

    Args:
        name: Of a field of `CampaignSettings`.
        value: Its value.
    """
    rule = RULES[name]
    if (value is None and name in OPTIONAL) or rule.holds(value):
        return None
    shown = repr(value) if len(repr(value)) <= MAX_SHOWN else f"{repr(value)[:MAX_SHOWN]}..."
    return f"{name} is {shown}; {rule.words}, such as {name} = {rule.example}"


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _at_least(least: int, example: str) -> Rule:
    return Rule(
        lambda value: _is_whole(value) and value >= least,
        f"it must be a whole number of at least {least}",
        example,
    )


def _text(words: str, example: str) -> Rule:
    return Rule(lambda value: isinstance(value, str) and value != "", words, f'"{example}"')


def _is_size(value: Any) -> bool:
    sides = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    return 1 <= len(sides) <= 2 and all(_is_whole(side) and side >= 1 for side in sides)


def _is_texts(value: object) -> bool:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False
    return all(isinstance(each, (str, PathLike)) for each in value)


def _is_multiples(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and _is_whole(number) and number >= 1 for key, number in value.items()
    )


def _is_vectors(value: Any) -> bool:
    """Whether it may be width vectors; the network says later whether it has them."""
    return _is_list(value) and all(_is_list(vector) for vector in value)


def _is_list(value: object) -> bool:
    return hasattr(value, "__iter__") and not isinstance(value, (str, bytes))


OPTIONAL = frozenset({"url", "samples", "widths", "resolution"})
RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "network": _text("it must be a name, module:function or FILE.py:function", "mobilenet_v1"),
        "out": Rule(
            lambda value: isinstance(value, (str, PathLike)) and value != "",
            "it must be a folder",
            '"runs/a"',
        ),
        "url": _text("it must be a device", "local:"),
        "samples": _at_least(1, "100"),
        "widths": Rule(_is_vectors, "it must be width vectors in channels", "[[6, 16], [3, 8]]"),
        "sampling": _text("it must be the name of a sampler", "sobol"),
        "seed": Rule(_is_whole, "it must be a whole number", "0"),
        "sources": Rule(_is_texts, "it must be a list of files", '["other.safetensors"]'),
        "runtime": _text("it must be the name of a runtime", "onnxruntime"),
        "batch": _at_least(1, "1"),
        "resolution": Rule(
            _is_size, "it must be a whole number of at least 1, or a height and a width", "224"
        ),
        "inputs": Rule(_is_texts, "it must be a list of shapes", '["x=1x3x224x224"]'),
        "freeze": Rule(_is_texts, "it must be a list of patterns", '["layer4.*"]'),
        "multiples": Rule(
            _is_multiples, "it must be a table of pattern = number", '{ "conv*" = 8 }'
        ),
        "precision": Rule(
            lambda value: value in PRECISIONS,
            f"it must be one that is known: {', '.join(PRECISIONS)}",
            f'"{PRECISIONS[0]}"',
        ),
        "threads": _at_least(1, "1"),
        "lock_frequency": Rule(
            lambda value: isinstance(value, bool), "it must be true or false", "true"
        ),
        "meter": Rule(
            lambda value: isinstance(value, str), "it must be the name of a meter", '"auto"'
        ),
        "layers": _at_least(0, "20"),
        "protocol": Rule(
            lambda value: isinstance(value, Protocol), "it must be a Protocol", "Protocol(visits=3)"
        ),
        "judgement": Rule(
            lambda value: isinstance(value, JudgementSettings),
            "it must be JudgementSettings",
            "JudgementSettings(max_change=0.2)",
        ),
    }
)
