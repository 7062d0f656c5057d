"""The width space of a network that nobody wrote for joulemap, derived from its ONNX graph."""

from .derive import DerivedNetwork, derive
from .known import derived_of, is_known, remember

__all__ = ["DerivedNetwork", "derive", "derived_of", "is_known", "remember"]
