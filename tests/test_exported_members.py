"""The public names: what a package's `__all__` says, what it holds, what the documents use."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import joulemap

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "joulemap",
    "joulemap.compressors",
    "joulemap.datasets",
    "joulemap.datasets.public",
    "joulemap.device_agents",
    "joulemap.device_agents.simulated",
    "joulemap.models",
    "joulemap.models.transfer",
    "joulemap.profiler",
    "joulemap.profiler.networks",
    "joulemap.profiler.networks.graph",
    "joulemap.profiler.networks.importing",
    "joulemap.profiler.report",
)


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def test_public_names_are_sorted_and_exist(package: ModuleType) -> None:
    assert list(package.__all__) == sorted(set(package.__all__), key=_order)
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in dir(package)


def test_nothing_public_is_left_out(package: ModuleType) -> None:
    held = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and str(getattr(value, "__module__", "")).startswith("joulemap")
    }
    assert held <= set(package.__all__)


def test_public_names_are_those_that_type_checkers_see(package: ModuleType) -> None:
    tree = ast.parse(Path(package.__file__ or "").read_text())
    seen = {name for node in ast.walk(tree) for name in _defined(node)}
    assert seen >= set(package.__all__)


def test_unknown_names_are_refused(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match="no attribute 'Bilnear'"):
        package.Bilnear  # noqa: B018


def test_every_package_is_tested_here() -> None:
    found = {
        ".".join(["joulemap", *file.parent.relative_to(ROOT).parts])
        for folder in ("compressors", "datasets", "device_agents", "models", "profiler")
        for file in (ROOT / folder).rglob("__init__.py")
        if "__all__ = " in file.read_text()
    }
    assert found | {"joulemap"} == set(PACKAGES)


def test_the_errors_that_the_package_draws_are_public() -> None:
    drawn = set(re.findall(r"\w+Error\b", joulemap.__doc__ or ""))
    device_agents = importlib.import_module("joulemap.device_agents")
    assert drawn == {
        name
        for package in (joulemap, device_agents)
        for name in package.__all__
        if name.endswith("Error")
    }
    for name in drawn - {"InputError", "JoulemapError"}:
        assert issubclass(getattr(device_agents, name), joulemap.JoulemapError)


@pytest.mark.parametrize(
    "file", sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")]), ids=lambda file: file.name
)
def test_the_documents_import_public_names(file: Path) -> None:
    for package, name in _imports(file.read_text()):
        module = importlib.import_module(package)
        if hasattr(module, "__all__"):
            is_module = isinstance(getattr(module, name, None), ModuleType)
            assert name in module.__all__ or is_module, f"{file.name} uses {package}.{name}"
        else:
            assert hasattr(module, name), f"{file.name} uses {package}.{name}"


def test_importing_the_public_packages_is_cheap() -> None:
    code = (
        "import sys, joulemap, joulemap.device_agents, joulemap.models, joulemap.profiler\n"
        "heavy = {'torch', 'pandas', 'scipy', 'numpy', 'sklearn', 'pyarrow', 'onnx', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_datasets_and_device_agents_work_without_torch() -> None:
    code = (
        "import sys, joulemap.datasets, joulemap.device_agents\n"
        "with joulemap.device_agents.Device('local:') as device:\n"
        "    assert device.probe().num_cpus >= 1\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def _order(name: str) -> tuple[bool, bool, str]:
    # As ruff sorts: constants, classes, the rest.
    return (not name.isupper(), not name[0].isupper(), name)


def _defined(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        yield node.name
    elif isinstance(node, ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _imports(text: str) -> Iterator[tuple[str, str]]:
    for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("joulemap"):
                yield from ((str(node.module), alias.name) for alias in node.names)
