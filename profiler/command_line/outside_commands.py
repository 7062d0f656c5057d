"""Commands that other packages bring, and those of joulemap's folders above the profiler.

`joulemap --help` shows them without importing their packages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from joulemap import InputError
from joulemap.plug_ins import PlugIns

# The names of joulemap's own commands, which cannot be taken.
OWN = frozenset(
    {
        *(
            "demo",
            "devices",
            "evaluate",
            "export",
            "fit",
            "import",
            "networks",
            "predict",
            "probe",
            "profile",
        ),
        "report",
    }
)
OUTSIDE = PlugIns("commands", "command", OWN)


def register_command(
    name: str, function: Callable[..., Any] | typer.Typer | str, *, summary: str = ""
) -> None:
    """Make a command of your own part of `joulemap`, in this process.

    A package says the same for good by an entry point of the group `joulemap.commands`.

    Args:
        name: Letters, digits, `_` and `-`: `joulemap NAME`.
        function: A function, as typer takes it: its arguments become the command's, its docstring
            the help; or a typer application for a command with subcommands; or `module:attribute`
            of one, which is imported when the command is called.
        summary: What `joulemap --help` says of it.

    Raises:
        InputError: The name is taken, or cannot be one.
    """
    OUTSIDE.register(name, function, summary=summary)


class CommandGroup(TyperGroup):
    """Commands of joulemap, and after them those that packages bring."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands, joulemap's own first."""
        return [*super().list_commands(ctx), *OUTSIDE.names()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command of joulemap, or what stands for a package's in lists; None if none."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        try:
            plug_in = OUTSIDE.find(cmd_name)
        except InputError as error:
            return TyperCommand(cmd_name, help=f"Cannot be called: {error}")
        if plug_in is None:
            return None
        help_text = plug_in.summary or f"A command {plug_in.origin}."
        return TyperCommand(cmd_name, help=help_text)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the called command, a package's imported now, and the arguments that are left.

        Raises:
            InputError: A package's command cannot be loaded.
        """
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and name not in self.commands:
            command = _loaded(name)
        return name, command, rest


def _loaded(name: str) -> Any:
    plug_in = OUTSIDE.find(name)
    if plug_in is None:
        raise InputError(f"there is no command '{name}'")
    found = OUTSIDE.load(plug_in)
    if isinstance(found, typer.Typer):
        app = found
    elif callable(found):
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(name)(found)
    else:
        raise OUTSIDE.unusable(plug_in, "a function or a typer.Typer")
    try:
        return typer.main.get_command(app)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise OUTSIDE.unusable(plug_in, f"a function that typer can call ({error})") from error
