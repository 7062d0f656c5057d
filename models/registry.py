"""Which predictors there are, by the name that the command line and files use."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from joulemap import InputError
from joulemap.plug_ins import PlugIns

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

OUTSIDE = PlugIns("predictors", "model", PREDICTORS)


def register(name: str, cls: type[Predictor]) -> None:
    """Make a predictor class of your own known by a name, in this process.

    It can then be fitted, chosen and compared by its name, and its files can be written and read.
    A package says the same for good by an entry point of the group `joulemap.predictors`.

    Args:
        name: Letters, digits, `_` and `-`; files of the predictor hold it.
        cls: The class; one registered before by this name gives way.

    Raises:
        InputError: The name is taken, or cannot be one.
    """
    OUTSIDE.register(name, cls)


def names() -> tuple[str, ...]:
    """Return the names of all predictors, sorted."""
    return tuple(sorted((*PREDICTORS, *OUTSIDE.names())))


def predictor_class(name: str) -> type[Predictor]:
    """Return the predictor class of that name.

    Raises:
        InputError: Unknown name, or a package that it needs is not installed.
    """
    entry = PREDICTORS.get(name) if isinstance(name, str) else None
    if entry is None:
        if (outside := _outside_class(name)) is not None:
            return outside
        raise InputError(f"there is no model named {name!r}; known: {', '.join(names())}")
    try:
        module = import_module(f"{__package__}.{entry.module}")
    except ImportError as error:
        raise InputError(
            f"model '{name}' cannot be loaded ({error}); install it with: {entry.install}"
        ) from error
    found: type[Predictor] = getattr(module, entry.class_name)
    return found


def class_in_file(name: str) -> type[Predictor]:
    """Return the predictor class that a file names.

    Raises:
        InputError: As `predictor_class`; where there is none of that name, with how to get it.
    """
    if isinstance(name, str) and name not in PREDICTORS and OUTSIDE.find(name) is None:
        raise InputError(
            f"it holds a model '{name[:60]}', which is not in this joulemap. Install the package "
            "that brings the model, or call joulemap.models.register(name, class), then load again"
        )
    return predictor_class(name)


def name_of(predictor: Predictor) -> str:
    """Return the name of a predictor's class.

    Raises:
        InputError: The class is neither in the table nor a plug-in.
    """
    cls = type(predictor)
    for name, entry in PREDICTORS.items():
        if (entry.class_name, f"{__package__}.{entry.module}") == (cls.__name__, cls.__module__):
            return name
    if (found := OUTSIDE.name_of(cls)) is not None:
        return found
    raise InputError(
        f"{cls.__name__} is not in joulemap's table of models, so a file of it could not be read; "
        f"call joulemap.models.register(name, {cls.__name__}) first, here and where it is read"
    )


def _outside_class(name: str) -> type[Predictor] | None:
    """Return the predictor class of that name that another package brings; None if none does.

    Raises:
        InputError: It cannot be loaded, or is no predictor class.
    """
    plug_in = OUTSIDE.find(name)
    if plug_in is None:
        return None
    found = OUTSIDE.load(plug_in)
    methods = ("fit_arrays", "predict_arrays", "state_names", "bind")
    if not isinstance(found, type) or not all(hasattr(found, method) for method in methods):
        raise OUTSIDE.unusable(plug_in, "a subclass of joulemap.models.Predictor")
    return found
