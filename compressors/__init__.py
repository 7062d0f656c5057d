"""Reference compressors that consume predictors, by name; packages may bring others."""

if __name__ == "compressors":  # found because the checkout itself is on Python's path
    raise ImportError(
        "this folder is imported as joulemap.compressors: run Python with -P, or from another folder"
    )

from .registry import get, names, register

__all__ = ["get", "names", "register"]
