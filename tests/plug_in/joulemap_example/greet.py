"""A command."""

from __future__ import annotations

from typing import Annotated

import typer

from joulemap import InputError


def greet(
    name: Annotated[str, typer.Argument(help="Who is greeted.")],
    *,
    loud: Annotated[bool, typer.Option("--loud", help="In capitals.")] = False,
) -> None:
    """Greet somebody."""
    if not name.isalpha():
        raise InputError(f"'{name}' is no name; write letters")
    text = f"Hello {name}"
    typer.echo(text.upper() if loud else text)
