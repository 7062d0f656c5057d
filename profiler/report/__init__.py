"""One self-contained HTML page about a dataset and the predictor fitted to it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .page import Headline, write_report

__all__ = ["Headline", "write_report"]


def __getattr__(name: str) -> Any:
    # Lazy, as everything in this folder: the page needs torch, the markup does not.
    if name in __all__:
        from . import page

        return getattr(page, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
