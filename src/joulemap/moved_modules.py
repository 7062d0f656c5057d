"""Old names of modules, which go on working for one release, with a warning."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_NEW_NAMES: dict[str, str] = {}


def keep_old_names(package: str, modules: Mapping[str, str]) -> None:
    """Let the old names of a package's modules be imported, as the modules that they are now.

    Args:
        package: Its full name.
        modules: New name by old name, both relative to the package.
    """
    _NEW_NAMES.update({f"{package}.{old}": f"{package}.{new}" for old, new in modules.items()})
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def former_name(package: str, module: str, name: str) -> Any:
    """Return what a package had when it was a single module: for its `__getattr__`.

    Args:
        package: Its full name.
        module: The module, relative to the package, that holds what the package was.
        name: The attribute asked for.

    Raises:
        AttributeError: There is no such name.
    """
    home = f"{package}.{module}"
    if name.startswith("__") or not hasattr(found := importlib.import_module(home), name):
        raise AttributeError(f"module '{package}' has no attribute '{name}'")
    _warn(f"{package}.{name}", f"{home}.{name}", stacklevel=4)
    return getattr(found, name)


def _warn(old: str, new: str, stacklevel: int) -> None:
    text = f"{old} is now {new}; the old name goes with version 0.3"
    warnings.warn(text, DeprecationWarning, stacklevel=stacklevel)


class _Finder:
    """Finds modules under their old names, after every other finder has failed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        new = _NEW_NAMES.get(name)
        return None if new is None else ModuleSpec(name, _Loader(new))


class _Loader(Loader):
    """Gives the module that has the new name: the same object, so that classes are the same."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        _warn(spec.name, self._name, stacklevel=2)
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has put the old name there
