"""How a network that nobody wrote for joulemap gets in: as one ONNX graph with example inputs."""

from .foreign_network import import_definition, import_network, is_foreign, short_name
from .imported_graph import ImportedGraph
from .input_shapes import InputShape, parse_input, parse_inputs
from .onnx_file import import_onnx
from .torch_export import import_module

__all__ = [
    "ImportedGraph",
    "InputShape",
    "import_definition",
    "import_module",
    "import_network",
    "import_onnx",
    "is_foreign",
    "parse_input",
    "parse_inputs",
    "short_name",
]
