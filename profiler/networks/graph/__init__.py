"""The width space of a network that nobody wrote for joulemap, derived from its ONNX graph."""

from .derive import DerivedNetwork, derive

__all__ = ["DerivedNetwork", "derive"]
