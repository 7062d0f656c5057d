import ast
from pathlib import Path

import pytest

from joulemap import models
from joulemap.models import registry


def test_public_names_are_sorted_and_exist() -> None:
    assert list(models.__all__) == sorted(models.__all__)
    for name in models.__all__:
        assert getattr(models, name) is not None
        assert name in dir(models)


def test_public_names_are_those_that_type_checkers_see() -> None:
    tree = ast.parse(Path(models.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        (alias.name, node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {name for name, _ in typed} == set(models.__all__)
    assert typed <= {(name, module) for name, module in models._MODULES.items()}


def test_every_predictor_is_public() -> None:
    assert {entry.class_name for entry in registry.PREDICTORS.values()} <= set(models.__all__)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Bilinear'"):
        models.Bilinear  # noqa: B018
