"""Parts of joulemap that other packages bring: named in their entry points, or registered in Python.

A package names its parts in its pyproject.toml, by the group of their kind::

    [project.entry-points."joulemap.predictors"]
    additive = "joulemap_example.additive:AdditivePredictor"

The entry points of what is installed are read when a name is asked for that joulemap itself does
not have, or when names are listed. A part is imported when its own name is asked for, and not
before. One that cannot be loaded, or takes a name of joulemap, costs a sentence and nothing else.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module

from joulemap import InputError

_PREFIX = "joulemap."
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,59}\Z")


class PlugInWarning(UserWarning):
    """A package's entry point for joulemap is not used, and why."""


@dataclass(frozen=True)
class PlugIn:
    """A part that is not joulemap's.

    Args:
        name: What it is called by.
        target: The part itself, or `module:attribute` where it is found.
        package: The package that brings it, with its version; empty where it was registered.
        summary: One line for lists.
    """

    name: str
    target: object
    package: str = ""
    summary: str = ""

    @property
    def origin(self) -> str:
        """Who brings it, as words after its name."""
        return f"of the package {self.package}" if self.package else "that was registered"


class PlugIns:
    """The parts of one kind that other packages bring.

    Args:
        group: The group of entry points, without `joulemap.`.
        kind: What such a part is called in messages.
        own: The names that joulemap itself has; they cannot be taken.

    Attributes:
        registered: What `register` was given in this process, by name.
    """

    def __init__(self, group: str, kind: str, own: Collection[str]) -> None:
        self.group = group
        self.kind = kind
        self.registered: dict[str, PlugIn] = {}
        self._own = own
        self._told: set[str] = set()

    def register(self, name: str, target: object, *, summary: str = "") -> None:
        """Make a part known by a name in this process; one registered before gives way.

        Args:
            name: Letters, digits, `_` and `-`.
            target: The part, or `module:attribute`, which is imported when it is asked for.
            summary: One line for lists.

        Raises:
            InputError: The name cannot be one, or joulemap or an installed package has it.
        """
        if not isinstance(name, str) or not _NAME.match(name):
            raise InputError(
                f"{name!r} cannot be the name of a {self.kind}; write a letter, then letters, "
                "digits, '_' and '-'"
            )
        if name in self._own:
            raise InputError(f"joulemap has a {self.kind} '{name}' itself; take another name")
        for other in self._installed().get(name, ()):
            if other.target not in (target, _path_of(target)):
                raise InputError(
                    f"'{name}' is the {self.kind} {other.origin}; take another name, or "
                    "uninstall the package"
                )
        self.registered[name] = PlugIn(name, target, summary=summary)

    def names(self) -> tuple[str, ...]:
        """Return the names of all parts of this kind that are not joulemap's, sorted."""
        return tuple(sorted({*self.registered, *self._installed()}))

    def find(self, name: object) -> PlugIn | None:
        """Return the part of that name, not yet imported; None if there is none.

        Raises:
            InputError: Two packages have a part of that name.
        """
        if not isinstance(name, str) or name in self._own:
            return None
        if name in self.registered:
            return self.registered[name]
        found = self._installed().get(name, ())
        if len(found) > 1:
            packages = " and ".join(plug_in.package for plug_in in found)
            raise InputError(
                f"the packages {packages} both have a {self.kind} '{name}'; uninstall one of them"
            )
        return found[0] if found else None

    def all(self) -> tuple[PlugIn, ...]:
        """Return the parts that can be found, sorted by name; none is imported."""
        several = {name: self._installed().get(name, ()) for name in self.names()}
        return tuple(
            self.registered.get(name) or found[0]
            for name, found in several.items()
            if name in self.registered or len(found) == 1
        )

    def load(self, plug_in: PlugIn) -> object:
        """Return the part itself, imported if it was not yet.

        Raises:
            InputError: It cannot be imported, whatever the reason.
        """
        if not isinstance(plug_in.target, str):
            return plug_in.target
        module, _, attribute = plug_in.target.partition(":")
        try:
            found: object = import_module(module)
            for part in attribute.split(".") if attribute else ():
                found = getattr(found, part)
        except (Exception, SystemExit) as error:
            raise InputError(
                f"the {self.kind} '{plug_in.name}' {plug_in.origin} cannot be loaded from "
                f"{plug_in.target}: {type(error).__name__}: {error}"
            ) from error
        return found

    def unusable(self, plug_in: PlugIn, wanted: str) -> InputError:
        """Return the error for a part that is not what it should be.

        Args:
            plug_in: The part.
            wanted: What a part of this kind is.
        """
        return InputError(
            f"the {self.kind} '{plug_in.name}' {plug_in.origin} cannot be used: "
            f"{_path_of(plug_in.target)} is not {wanted}"
        )

    def name_of(self, part: object) -> str | None:
        """Return the name by which a part is found; None if by none. Nothing is imported for it."""
        for plug_in in self.all():
            if plug_in.target is part or _loaded(plug_in.target) is part:
                return plug_in.name
        return None

    def _installed(self) -> Mapping[str, tuple[PlugIn, ...]]:
        found: dict[str, list[PlugIn]] = defaultdict(list)
        for plug_in in _entry_points(tuple(sys.path)).get(_PREFIX + self.group, ()):
            if not _NAME.match(plug_in.name):
                self._tell(plug_in, "this cannot be a name")
            elif plug_in.name in self._own:
                self._tell(plug_in, "joulemap itself has such a name")
            else:
                found[plug_in.name].append(plug_in)
        return {name: tuple(several) for name, several in found.items()}

    def tell(self, text: str) -> None:
        """Warn that a part is not used, once."""
        if text not in self._told:
            self._told.add(text)
            warnings.warn(text, PlugInWarning, stacklevel=4)

    def _tell(self, plug_in: PlugIn, why: str) -> None:
        self.tell(f"the {self.kind} {plug_in.name[:60]!r} {plug_in.origin} is not used: {why}")


def _path_of(target: object) -> object:
    """Return where a part is found, as `module:attribute`; what has no such place as it is."""
    name = getattr(target, "__qualname__", None)
    return target if name is None else f"{getattr(target, '__module__', None)}:{name}"


def _loaded(target: object) -> object:
    """Return the part at `module:attribute` if the module has been imported; else None."""
    module, _, attribute = target.partition(":") if isinstance(target, str) else ("", "", "")
    found: object = sys.modules.get(module)
    for part in attribute.split("."):
        found = getattr(found, part, None)
    return found


@lru_cache(maxsize=4)
def _entry_points(path: tuple[str, ...]) -> Mapping[str, tuple[PlugIn, ...]]:
    """Return joulemap's groups of what is installed on a path, each with its entry points.

    Only files that speak of joulemap are parsed: this stands in the way of `joulemap --help`, and
    another package's broken file must not break it.
    """
    from importlib.metadata import distributions  # takes a tenth of the time of `--help`

    found: dict[str, list[PlugIn]] = defaultdict(list)
    seen = set()
    for distribution in distributions(path=list(path)):
        try:
            text = distribution.read_text("entry_points.txt") or ""
        except (OSError, ValueError):
            continue
        if f"[{_PREFIX}" not in text:
            continue
        package = f"{distribution.metadata['Name']} {distribution.version}"
        if distribution.metadata["Name"] in seen:
            continue  # an older copy, further down the path
        seen.add(distribution.metadata["Name"])
        try:
            for group, plug_in in _of_text(text, package):
                found[group].append(plug_in)
        except ValueError as error:
            warnings.warn(
                f"the entry points of the package {package} cannot be read: {error}",
                PlugInWarning,
                stacklevel=2,
            )
    return {group: tuple(several) for group, several in found.items()}


def _of_text(text: str, package: str) -> Iterator[tuple[str, PlugIn]]:
    """Yield each entry point of joulemap's groups in an entry_points.txt, after its group.

    Raises:
        ValueError: A line of these groups is not one.
    """
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1].strip()
        elif group.startswith(_PREFIX) and line and line[0] not in "#;":
            name, equals, target = (part.strip() for part in line.partition("="))
            if not equals or not re.match(r"[\w.]+(:[\w.]+)?( *\[.*\])?$", target):
                raise ValueError(f"'{line[:80]}' is no entry")
            yield group, PlugIn(name, target.partition("[")[0].strip(), package)
