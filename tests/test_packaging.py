"""The five folders, their links, and the wheel: all of them name the same parts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import joulemap

ROOT = Path(__file__).parents[1]
FOLDERS = {"profiler", "device_agents", "models", "datasets", "compressors"}
COMMAND = "scripts/joulemap"
ROOT_FILES = {
    *("__init__.py", "interruption.py", "moved_modules.py", "plug_ins.py", "py.typed"),
    *("regular_files.py", "showable_text.py"),
}


def test_links_and_wheel_mapping_name_the_same_folders() -> None:
    links = {p.name: p.resolve() for p in (ROOT / "src/joulemap").iterdir() if p.is_symlink()}
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    mapping = build["targets"]["wheel"]["sources"]
    assert links == {name: ROOT / name for name in FOLDERS}
    assert mapping == {name: f"joulemap/{name}" for name in FOLDERS} | {"src/joulemap": "joulemap"}
    assert set(build["only-include"]) >= FOLDERS


def test_links_are_relative_so_that_a_clone_can_be_moved() -> None:
    for name in FOLDERS:
        assert (ROOT / "src/joulemap" / name).readlink() == Path("../..") / name


def test_root_package_has_no_module_the_wheel_would_miss() -> None:
    files = {
        p.name
        for p in (ROOT / "src/joulemap").iterdir()
        if not p.is_symlink() and p.name != "__pycache__"
    }
    assert files == ROOT_FILES
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    for included in (build["only-include"], build["targets"]["sdist"]["only-include"]):
        assert set(included) >= {f"src/joulemap/{name}" for name in ROOT_FILES}


def test_the_command_is_executable_wherever_it_is_called_from(tmp_path: Path) -> None:
    assert os.access(ROOT / "src/joulemap.sh", os.X_OK)
    bin_folder = tmp_path / "with space"
    bin_folder.mkdir()
    command = bin_folder / "joulemap"
    command.write_bytes((ROOT / "src/joulemap.sh").read_bytes())
    command.chmod(0o755)
    (bin_folder / "joulemap-python").write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    (bin_folder / "joulemap-python").chmod(0o755)
    (tmp_path / "link").symlink_to(command)
    for called in ([command], [tmp_path / "link"], ["sh", "joulemap"]):
        done = subprocess.run(
            [*map(str, called), "a b", "--c"],
            capture_output=True,
            text=True,
            check=False,
            cwd=bin_folder,
        )
        assert (done.stdout, done.stderr) == ("a b|--c|", "")


def test_every_folder_of_modules_is_a_package() -> None:
    for folder in FOLDERS:
        for module in (ROOT / folder).rglob("*.py"):
            assert (module.parent / "__init__.py").exists(), module


def test_installing_joulemap_does_not_expose_the_folders_as_top_level_packages() -> None:
    code = f"""
from importlib.util import find_spec
print([spec.origin for name in {sorted(FOLDERS)} if (spec := find_spec(name))])
"""
    command = [sys.executable, "-I", "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert str(ROOT) not in found


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_a_folder_of_the_checkout_is_not_imported_under_its_own_name(folder: str) -> None:
    """It would be a second copy of every class, and errors of one are not caught as the other's."""
    command = [sys.executable, "-c", f"import {folder}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env={})
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert last == (
        f"ImportError: this folder is imported as joulemap.{folder}: "
        "run Python with -P, or from another folder"
    )


def test_the_citation_names_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.+)$", text, re.MULTILINE)[1] == joulemap.__version__  # type: ignore[index]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built with the packages that are installed."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-P", "-m", "build", "--wheel", "--no-isolation"]
    done = subprocess.run(
        [*command, "--outdir", str(out), str(ROOT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\ninstall: pip install -e '.[test]'"
    (file,) = out.glob("joulemap-*.whl")
    return file


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)  # noqa: S202 - our own wheel
    return target


def test_the_wheel_holds_every_module_and_nothing_else(unpacked: Path) -> None:
    package = unpacked / "joulemap"
    packed = {p.relative_to(package) for p in package.rglob("*") if p.is_file()}
    sources = {
        p.relative_to(ROOT)
        for folder in FOLDERS
        for p in (ROOT / folder).rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert packed == sources | {Path(name) for name in ROOT_FILES}
    (data,) = unpacked.glob("*.data")
    assert [p.relative_to(data) for p in data.rglob("*") if p.is_file()] == [Path(COMMAND)]
    others = {p.name for p in unpacked.iterdir() if p.suffix not in (".dist-info", ".data")}
    assert others == {"joulemap"}


def test_the_wheel_holds_what_travels_to_devices(unpacked: Path) -> None:
    agents = unpacked / "joulemap/device_agents"
    for part in ("onboard/agent.py", "onboard/model/materialise.py", "runtimes/onnx_runtime.py"):
        assert (agents / part).is_file()
    (about,) = unpacked.glob("*.dist-info")
    entry_points = (about / "entry_points.txt").read_text()
    assert "joulemap-python = joulemap.profiler.command_line.start:main" in entry_points
    assert (about / "licenses/LICENSE").is_file()


def test_the_index_page_has_no_link_that_is_relative_to_the_checkout(unpacked: Path) -> None:
    (about,) = unpacked.glob("*.dist-info")
    metadata = Parser().parsestr((about / "METADATA").read_text())
    links = re.findall(r"\]\(([^)]+)\)", str(metadata.get_payload()))
    assert len(links) > 10
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    assert metadata["Version"] == joulemap.__version__
    assert {text.split(",")[0] for text in metadata.get_all("Project-URL", [])} >= {"Homepage"}


def test_the_sdist_makes_the_same_wheel_and_holds_the_tests(unpacked: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "build", "--sdist", "--no-isolation"]
    done = subprocess.run(
        [*command, "--outdir", str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    (file,) = tmp_path.glob("joulemap-*.tar.gz")
    with tarfile.open(file) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    for name in ("tests/test_packaging.py", "docs/index.md", "benchmarks/trust.py", "LICENSE"):
        assert (folder / name).is_file(), name
    command = [sys.executable, "-P", "-m", "build", "--wheel", "--no-isolation"]
    done = subprocess.run(
        [*command, "--outdir", str(tmp_path), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    (again,) = tmp_path.glob("joulemap-*.whl")
    with zipfile.ZipFile(again) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    (about,) = unpacked.glob("*.dist-info")
    assert packed == {
        str(path.relative_to(unpacked))
        for path in unpacked.rglob("*")
        if path.is_file() and not {"__pycache__", about.name} & {*path.relative_to(unpacked).parts}
    }


def test_the_wheel_can_be_imported_from_anywhere(unpacked: Path, tmp_path: Path) -> None:
    code = f"""
import importlib, sys
sys.path.insert(0, {str(unpacked)!r})
names = ["datasets", "device_agents", "models", "profiler", "profiler.networks"]
for name in names:
    module = importlib.import_module("joulemap." + name)
    assert module.__file__.startswith({str(unpacked)!r}), module.__file__
    for public in module.__all__:
        getattr(module, public)
from joulemap.device_agents.host.agent_archive import agent_archive
assert len(agent_archive()[1]) > 10_000
from joulemap.profiler.command_line.cli import main
assert main(["--version"]) == 0
"""
    command = [sys.executable, "-I", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("joulemap ")
