"""Where the command begins: it takes signals before anything that takes long is imported."""

from __future__ import annotations

from joulemap import interruption

from . import standard_streams


def main() -> int:
    """Run the command line and return the exit code."""
    # Before any file is opened: it could take the place of a closed standard stream.
    standard_streams.prepare()
    interruption.take()
    from .cli import main as run

    return run()
