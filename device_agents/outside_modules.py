"""Meters and runtimes of other packages: single modules, which travel to the device in the archive.

On the device there is no joulemap. What such a module imports of `joulemap.device_agents.onboard`,
`.meters` and `.runtimes` it gets there from the agent, under the agent's name; it imports nothing
else of joulemap.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from dataclasses import dataclass
from types import ModuleType

from joulemap import InputError
from joulemap.plug_ins import PlugIn, PlugIns

# The package in the archive that mirrors `joulemap.device_agents`.
AGENT = "joulemap_agent"
# What a device's Python may be.
OLDEST_PYTHON = (3, 9)
_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_IMPORT = re.compile(
    r"^(\s*from )joulemap\.device_agents(?=\.(onboard|meters|runtimes)\b)", re.MULTILINE
)


@dataclass(frozen=True)
class OutsideModule:
    """A module that travels to the device.

    Args:
        name: What the meter or runtime is called by.
        module: The module, imported here.
        source: Its text, as the device imports it.
    """

    name: str
    module: ModuleType
    source: str

    @property
    def file(self) -> str:
        """Its module's name in the archive's folder; joulemap has none that begins so."""
        return f"outside_{self.name}"

    def said(self, constant: str) -> str:
        """Return a text that the module states for lists; empty if it states none."""
        return str(getattr(self.module, constant, ""))


class OutsideModules(PlugIns):
    """The meters or runtimes that other packages bring.

    Args:
        group: The group of entry points, without `joulemap.`; each leads to a module.
        kind: What such a part is called in messages.
        own: The names that joulemap itself has.
        members: What the module must define.
    """

    def __init__(
        self, group: str, kind: str, own: Collection[str], members: tuple[str, ...]
    ) -> None:
        super().__init__(group, kind, own)
        self._members = members

    def module_named(self, name: str) -> OutsideModule | None:
        """Return the module of that name; None if there is none.

        Raises:
            InputError: It cannot be loaded, or cannot travel to a device.
        """
        plug_in = self.find(name)
        return None if plug_in is None else self._module(plug_in)

    def modules(self) -> tuple[OutsideModule, ...]:
        """Return all modules that can travel, sorted by name; of others a warning says why not."""
        found = []
        for plug_in in self.all():
            try:
                found.append(self._module(plug_in))
            except InputError as error:
                self.tell(f"left out: {error}")
        return tuple(found)

    def _module(self, plug_in: PlugIn) -> OutsideModule:
        module = self.load(plug_in)
        if not isinstance(module, ModuleType):
            raise self.unusable(plug_in, "a module")
        problem = None if _NAME.match(plug_in.name) else "its name is not of a-z, 0-9 and _"
        for member in self._members:
            if not hasattr(module, member):
                problem = f"{module.__name__} has no {member}"
        source = _source(module)
        problem = problem or _problem(source)
        if problem:
            raise InputError(
                f"the {self.kind} '{plug_in.name}' {plug_in.origin} cannot travel to a device: "
                f"{problem}"
            )
        return OutsideModule(plug_in.name, module, source)


def _source(module: ModuleType) -> str:
    """Return a module's text with joulemap's name on the device; empty if it has none."""
    reader = getattr(getattr(module, "__loader__", None), "get_source", None)
    source = reader(module.__name__) if reader else None
    return _IMPORT.sub(rf"\1{AGENT}", source or "")


def _problem(source: str) -> str | None:
    """Return why a module's text cannot be imported on a device; None if nothing speaks against."""
    if not source:
        return "its source cannot be found"
    try:
        tree = ast.parse(source, feature_version=OLDEST_PYTHON)
    except (SyntaxError, ValueError) as error:
        return f"a device's Python 3.9 cannot read it: {error}"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            return f"it imports what lies beside it (line {node.lineno}); only one file travels"
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.partition(".")[0] == "joulemap":
                return (
                    f"it imports {name}, and the device has no joulemap; write `from "
                    "joulemap.device_agents.onboard.MODULE import NAME` for what the agent has"
                )
    return None
