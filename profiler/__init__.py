"""The run: networks, sampling, protocol, campaign, report, command line."""

if __name__ == "profiler":  # found because the checkout itself is on Python's path
    raise ImportError(
        "this folder is imported as joulemap.profiler: run Python with -P, or from another folder"
    )

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import networks
    from .campaign import Observer, profile
    from .layers import profile_layers
    from .plan import VisitPlan
    from .protocol import Protocol
    from .sampling import sample

__all__ = ["Observer", "Protocol", "VisitPlan", "networks", "profile", "profile_layers", "sample"]

_HOMES = {
    "Observer": "campaign",
    "Protocol": "protocol",
    "VisitPlan": "plan",
    "profile": "campaign",
    "profile_layers": "layers",
    "sample": "sampling",
}


def __getattr__(name: str) -> Any:
    # Lazy: the command line lives in this package, and `joulemap --help` must not wait for torch.
    if name == "networks":
        return import_module(".networks", __name__)
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
