"""The names of predictors, by which the command line and files know them, and where each lives."""

from __future__ import annotations

from dataclasses import dataclass

from joulemap import InputError
from joulemap.plug_ins import PlugIns

_MODELS = __name__.rpartition(".base.")[0]


@dataclass(frozen=True)
class Entry:
    """Where a predictor lives: its module in `models`, its class, and how to install it."""

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

OUTSIDE = PlugIns("predictors", "model", PREDICTORS)


def names() -> tuple[str, ...]:
    """Return the names of all predictors, sorted."""
    return tuple(sorted((*PREDICTORS, *OUTSIDE.names())))


def name_of(predictor: object) -> str:
    """Return the name of a predictor's class.

    Raises:
        InputError: The class is neither in the table nor a plug-in.
    """
    cls = type(predictor)
    for name, entry in PREDICTORS.items():
        if (entry.class_name, f"{_MODELS}.{entry.module}") == (cls.__name__, cls.__module__):
            return name
    if (found := OUTSIDE.name_of(cls)) is not None:
        return found
    raise InputError(
        f"{cls.__name__} is not in joulemap's table of models, so a file of it could not be read; "
        f"call joulemap.models.register(name, {cls.__name__}) first, here and where it is read"
    )
