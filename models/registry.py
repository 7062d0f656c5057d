"""Which predictors there are, by the name that the command line and files use."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from joulemap import InputError

if TYPE_CHECKING:
    from .base.predictor import Predictor


@dataclass(frozen=True)
class Entry:
    """Where a predictor lives: its module in this folder, its class, and how to install it."""

    module: str
    class_name: str
    install: str = "pip install joulemap"


# One line per predictor, sorted by name. Loaded when asked for, since torch is slow to import.
PREDICTORS: dict[str, Entry] = {
    "aligned": Entry("aligned.predictor", "AlignedBilinearPredictor"),
    "auto": Entry("auto", "AutoPredictor"),
    "bilinear": Entry("linear.bilinear", "BilinearPredictor"),
    "flops": Entry("linear.flops", "FlopsPredictor"),
    "gp": Entry("learned.gaussian_process", "GaussianProcessPredictor"),
    "layerwise": Entry("layers.layerwise", "LayerwisePredictor"),
    "lookup": Entry("layers.lookup", "LookupTablePredictor"),
    "neural": Entry("learned.neural", "NeuralPredictor"),
    "params": Entry("linear.flops", "ParametersPredictor"),
    "systolic": Entry("systolic.predictor", "SystolicArrayModel"),
    "transfer": Entry("transfer.predictor", "TransferPredictor"),
    "trees": Entry("learned.trees", "TreesPredictor"),
}


def names() -> tuple[str, ...]:
    """Return the names of all predictors, sorted."""
    return tuple(PREDICTORS)


def predictor_class(name: str) -> type[Predictor]:
    """Return the predictor class of that name.

    Raises:
        InputError: Unknown name, or a package that it needs is not installed.
    """
    entry = PREDICTORS.get(name) if isinstance(name, str) else None
    if entry is None:
        raise InputError(f"there is no model named {name!r}; known: {', '.join(names())}")
    try:
        module = import_module(f"{__package__}.{entry.module}")
    except ImportError as error:
        raise InputError(
            f"model '{name}' cannot be loaded ({error}); install it with: {entry.install}"
        ) from error
    found: type[Predictor] = getattr(module, entry.class_name)
    return found


def name_of(predictor: Predictor) -> str:
    """Return the name of a predictor's class.

    Raises:
        InputError: The class is not in the table.
    """
    for name, entry in PREDICTORS.items():
        if entry.class_name == type(predictor).__name__:
            return name
    raise InputError(
        f"{type(predictor).__name__} is not in joulemap's table of models, so a file of it could "
        f"not be read; known: {', '.join(names())}"
    )
