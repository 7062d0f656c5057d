"""Networks as data and as torch modules: the zoo, outside factories, a builder for specs."""

from .definition import NetworkDefinition
from .registry import build, from_module, get, names, register
from .spec_builder import SpecBuilder

__all__ = ["NetworkDefinition", "SpecBuilder", "build", "from_module", "get", "names", "register"]
