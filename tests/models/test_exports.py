"""The lazy table of the package leads where type checkers look (see tests/test_exported_members)."""

import ast
from pathlib import Path

from joulemap import models
from joulemap.models import registry


def test_the_table_of_lazy_names_is_what_type_checkers_see() -> None:
    tree = ast.parse(Path(models.__file__).read_text())
    (block,) = [
        n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"
    ]
    typed = {
        (alias.name, node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    # `register` is there at once: it needs nothing that is slow to import.
    assert {name for name, _ in typed} == set(models.__all__) - {"register"}
    assert typed <= {(name, module) for name, module in models._MODULES.items()}


def test_every_predictor_is_public() -> None:
    assert {entry.class_name for entry in registry.PREDICTORS.values()} <= set(models.__all__)
