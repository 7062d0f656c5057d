"""Where the command begins: it takes signals before anything that takes long is imported."""

from __future__ import annotations

from joulemap import interruption


def main() -> int:
    """Run the command line and return the exit code."""
    interruption.take()
    from .cli import main as run

    return run()
