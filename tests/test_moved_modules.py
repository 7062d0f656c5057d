"""Modules that came into wings are still found under their old names, as the same objects."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from joulemap import models, moved_modules


@pytest.mark.parametrize("old", sorted(moved_modules._NEW_NAMES))
def test_an_old_name_gives_the_module_and_a_warning(
    old: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = importlib.import_module(moved_modules._NEW_NAMES[old])
    spec = new.__spec__
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new.__name__}"):
        found = importlib.import_module(old)
    assert found is new
    assert new.__spec__ is spec


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("aligned", "AlignedBilinearPredictor"),
        ("linear", "PolynomialPredictor"),
        ("systolic", "SystolicArrayModel"),
    ],
)
def test_a_package_gives_what_the_module_of_its_name_had(package: str, name: str) -> None:
    found = importlib.import_module(f"joulemap.models.{package}")
    with pytest.warns(DeprecationWarning, match="the old name goes"):
        assert getattr(found, name).__name__ == name
    assert not hasattr(found, "nothing")
    assert not hasattr(found, "__nothing__")


def test_nothing_in_joulemap_uses_an_old_name() -> None:
    names = [f"joulemap.models.{name}" for name in models.__all__]
    code = "import importlib, sys\n" + "\n".join(
        f"getattr(importlib.import_module({name.rpartition('.')[0]!r}), {name.rpartition('.')[2]!r})"
        for name in names
    )
    command = [sys.executable, "-I", "-W", "error::DeprecationWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
