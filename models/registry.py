"""Which predictors there are, by the name that the command line and files use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from joulemap import InputError

from .base.names import OUTSIDE, PREDICTORS, Entry, name_of, names

if TYPE_CHECKING:
    from .base.predictor import Predictor

__all__ = [
    "OUTSIDE",
    "PREDICTORS",
    "Entry",
    "class_in_file",
    "name_of",
    "names",
    "predictor_class",
    "register",
]


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
