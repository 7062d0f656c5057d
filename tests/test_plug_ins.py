"""Parts that other packages bring: an example package, installed by pip as a user does it."""

from __future__ import annotations

import doctest
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulemap import InputError, compressors, models
from joulemap.models.registry import OUTSIDE as MODELS
from joulemap.models.testing import ArrayDataset, PredictorContract, draw_widths
from joulemap.plug_ins import PlugIns, PlugInWarning
from joulemap.profiler import Sampler, networks, register_command, register_sampler, sample
from joulemap.profiler.campaign import sampling
from joulemap.profiler.command_line import cli, outside_commands
from joulemap.profiler.networks import factories
from joulemap.profiler.testing import NetworkContract, SamplerContract

EXAMPLE = Path(__file__).parent / "plug_in"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example package, installed."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-P", "-m", "pip", "install", "--quiet", "--no-index"]
    done = subprocess.run(
        [*command, "--no-deps", "--no-build-isolation", "--target", str(folder), str(EXAMPLE)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def installed(site: Path) -> Iterator[Path]:
    """The folder on Python's path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        yield site
    for name in [name for name in sys.modules if name.partition(".")[0] == "joulemap_example"]:
        del sys.modules[name]


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with that folder on its path."""
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(site)},
    )


MAIN = "import sys\nfrom joulemap.profiler.command_line.start import main\ncode = main()\n"


def lenet() -> ArrayDataset:
    spec = networks.get("lenet5")
    widths = draw_widths(spec, 60)
    noise = 1 + 0.01 * np.random.default_rng(0).standard_normal(60)
    return ArrayDataset(spec, widths, {"latency_s": (1e-3 + 1e-6 * widths.sum(1)) * noise})


@pytest.mark.usefixtures("installed")
class TestAdditive(PredictorContract):
    @pytest.fixture
    def dataset(self) -> ArrayDataset:
        return lenet()

    def make(self, spec: Any = None) -> Any:
        return models.registry.predictor_class("additive")(spec)


@pytest.mark.usefixtures("installed")
class TestTiny(NetworkContract):
    name = "tiny"
    resolution = 24


@pytest.mark.usefixtures("installed")
class TestCorners(SamplerContract):
    name = "corners"


# -- files -----------------------------------------------------------------------------------------


def test_a_file_loads_where_the_package_is_and_names_the_model_where_it_is_not(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "additive.safetensors"
    fitted = models.fit(lenet(), model="additive")
    fitted.save(file)
    loaded = models.load(file)
    assert type(loaded) is type(fitted)
    widths = draw_widths(networks.get("lenet5"), 5)
    np.testing.assert_array_equal(loaded.predict(widths), fitted.predict(widths))
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(installed)])
    with pytest.raises(InputError) as refused:
        models.load(file)
    said = str(refused.value)
    assert "cannot be used: it holds a model 'additive'" in said
    assert "Install the package that brings the model, or call joulemap.models.register" in said


def test_a_class_without_a_name_is_told_how_to_get_one(
    installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base: Any = models.registry.predictor_class("additive")

    class BilinearPredictor(base):  # type: ignore[misc]
        """Called as one of joulemap's."""

    fitted = BilinearPredictor().fit_dataset(lenet(), "latency_s")
    with pytest.raises(InputError, match=r"models.register\(name, BilinearPredictor\) first"):
        fitted.save(tmp_path / "own.safetensors")
    monkeypatch.setattr(MODELS, "registered", {})
    models.register("own", BilinearPredictor)
    assert "own" in models.registry.names()
    fitted.save(tmp_path / "own.safetensors")
    assert type(models.load(tmp_path / "own.safetensors")) is BilinearPredictor
    for taken in ("bilinear", "additive"):
        with pytest.raises(InputError, match="take another name"):
            models.register(taken, BilinearPredictor)
    models.register("additive", base)  # as its package says it
    models.register("odd", dict)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"dict is not a subclass of joulemap.models.Predictor"):
        models.registry.predictor_class("odd")


# -- networks and samplers -------------------------------------------------------------------------


def test_a_spec_of_a_file_is_built_where_its_package_is(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = networks.get("tiny")
    assert spec.source == "factory:joulemap_example.tiny:tiny"
    # As in a process where nobody has named it.
    monkeypatch.setattr(factories, "_named", {})
    assert type(networks.build(spec, [4])).__name__ == "Tiny"
    # What the package does not name as a network is code like any other.
    other = replace(spec, source="factory:joulemap_example.tiny:build")
    with pytest.raises(InputError, match="names code of its own"):
        networks.build(other, [4])
    monkeypatch.setattr(factories, "_named", {})
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(installed)])
    with pytest.raises(InputError, match=r"names code of its own, 'joulemap_example.tiny:tiny'"):
        networks.build(spec, [4])


def test_networks_can_be_registered(monkeypatch: pytest.MonkeyPatch, installed: Path) -> None:
    monkeypatch.setattr(networks.registry.OUTSIDE, "registered", {})
    factory = importlib.import_module("joulemap_example.tiny").tiny
    networks.register("other", factory)
    assert networks.get("other", 24).input_shape == (3, 24, 24)
    with pytest.raises(InputError, match="joulemap has a network 'vit' itself"):
        networks.register("vit", factory)
    with pytest.raises(InputError, match=r"there is no network 'tinny'.* other, .*tiny"):
        networks.get("tinny")


def test_a_samplers_mistakes_are_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling.OUTSIDE, "registered", {})
    spec = networks.get("lenet5")

    def fails(spec: Any, count: int, seed: int) -> Any:
        yield spec.max_widths
        raise ValueError("out of luck")

    register_sampler("fails", Sampler(fails, is_prefix_stable=True))
    register_sampler("wide", Sampler(lambda *_: [(10**6,) * 4], is_prefix_stable=True))
    assert sample(spec, 1, sampling="fails") == [spec.max_widths]
    with pytest.raises(InputError, match=r"the sampler 'fails' fails: ValueError: out of luck"):
        sample(spec, 2, sampling="fails")
    with pytest.raises(InputError, match="1000000"):
        sample(spec, 1, sampling="wide")
    with pytest.raises(InputError, match=r"known: active, aligned, .*fails, lhs, "):
        sample(spec, 1, sampling="magic")
    with pytest.raises(InputError, match="joulemap has a sampler 'sobol' itself"):
        register_sampler("sobol", sampling.SAMPLERS["lhs"])


# -- compressors -----------------------------------------------------------------------------------


def test_compressors_of_packages_are_listed_and_found_by_name(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressors.registry.OUTSIDE, "registered", {})
    assert compressors.names() == ("broken", "halve")
    assert "joulemap_example.halve" not in sys.modules
    spec = networks.get("lenet5")
    halved = compressors.get("halve")(spec)
    assert list(halved.values()) == [width.max // 2 for width in spec.widths]
    compressors.register("most", lambda spec: spec.max_widths)
    assert compressors.get("most")(spec) == spec.max_widths
    with pytest.raises(InputError, match=r"no compressor 'third'; known: broken, halve, most"):
        compressors.get("third")
    with pytest.raises(InputError, match=r"'broken' of the package joulemap-example 0.3 cannot be"):
        compressors.get("broken")
    with pytest.raises(InputError, match="cannot be the name of a"):
        compressors.register("no name", print)
    with pytest.raises(InputError, match="'halve' is the compressor of the package"):
        compressors.register("halve", print)
    compressors.register("odd", "joulemap:__version__")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="joulemap:__version__ is not a class or a function"):
        compressors.get("odd")


def test_without_packages_there_is_no_compressor_and_that_is_said(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressors.registry.OUTSIDE, "registered", {})
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(installed)])
    assert compressors.names() == ()
    for name in ("ecc", ""):
        with pytest.raises(InputError, match=f"no compressor '{name}'; known: none; a package may"):
            compressors.get(name)
    assert doctest.testmod(compressors.registry).failed == 0


# -- commands --------------------------------------------------------------------------------------


def test_help_shows_commands_of_packages_and_imports_none(site: Path) -> None:
    code = MAIN + "print(*[name for name in sys.modules if name.startswith('joulemap_example')])"
    done = run(site, "-c", code, "--help")
    assert done.returncode == 0, done.stderr
    assert "greet" in done.stdout
    assert "A command of the package joulemap-example 0.3." in done.stdout
    assert done.stdout.splitlines()[-1] == ""
    assert done.stderr == ""


def test_a_command_of_a_package_runs_as_one_of_joulemap(site: Path) -> None:
    def greet(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run(site, "-c", MAIN + "sys.exit(code)", *arguments)

    assert greet("greet", "Ada", "--loud").stdout == "HELLO ADA\n"
    assert "Who is greeted." in greet("greet", "--help").stdout
    wrong = greet("greet", "4")
    assert (wrong.returncode, wrong.stderr) == (2, "joulemap: '4' is no name; write letters\n")
    broken = greet("broken")
    assert broken.returncode == 2
    assert "the command 'broken' of the package joulemap-example 0.3 cannot be" in broken.stderr
    assert "RuntimeError: this module is broken" in " ".join(broken.stderr.split())
    assert "Traceback" not in broken.stderr


def test_commands_can_be_registered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(outside_commands.OUTSIDE, "registered", {})
    register_command("twice", lambda: print("twice"), summary="Say it.")
    assert cli.main(["twice"]) == 0
    assert capsys.readouterr().out == "twice\n"
    assert cli.main(["--help"]) == 0
    assert "Say it." in capsys.readouterr().out
    assert {
        command.name or command.callback.__name__  # type: ignore[union-attr]
        for command in cli.app.registered_commands
    } == outside_commands.OWN
    with pytest.raises(InputError, match="joulemap has a command 'fit' itself"):
        register_command("fit", print)


# -- broken packages -------------------------------------------------------------------------------


def package(folder: Path, name: str, entry_points: str) -> None:
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(entry_points)


def test_what_a_package_names_wrongly_is_said_and_the_rest_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    package(tmp_path, "one", "[joulemap.things]\nown = a:b\ngood = json:loads\nsame = a:b\n")
    package(tmp_path, "two", "[joulemap.things]\nsame = c:d [extra]\n[other]\nnonsense\n")
    package(tmp_path, "three", "[joulemap.things]\nnonsense\n")
    package(tmp_path, "four", "[joulemap.things]\nan odd name = a:b\nmissing = json:no.such\n")
    (tmp_path / "five-1.0.dist-info").mkdir()
    (tmp_path / "five-1.0.dist-info" / "entry_points.txt").write_bytes(b"[joulemap.things]\n\xff")
    things = PlugIns("things", "thing", {"own"})
    with pytest.warns(PlugInWarning) as said:
        assert things.names() == ("good", "missing", "same")
    assert sorted(str(each.message) for each in said) == [
        "the entry points of the package three 1.0 cannot be read: 'nonsense' is no entry",
        "the thing 'an odd name' of the package four 1.0 is not used: this cannot be a name",
        "the thing 'own' of the package one 1.0 is not used: joulemap itself has such a name",
    ]
    good = things.find("good")
    assert good is not None
    assert things.load(good) is importlib.import_module("json").loads
    with pytest.raises(InputError, match=r"packages \w+ 1.0 and \w+ 1.0 both have a thing 'same'"):
        things.find("same")
    assert [plug_in.name for plug_in in things.all()] == ["good", "missing"]
    missing = things.find("missing")
    assert missing is not None
    with pytest.raises(
        InputError, match=r"'missing' of the package four 1.0 cannot be loaded from"
    ):
        things.load(missing)
    assert things.find("own") is None
    with pytest.raises(InputError, match="cannot be the name of a thing"):
        things.register("a b", 1)


def test_a_broken_model_of_a_package_is_a_sentence(installed: Path) -> None:
    assert {"additive", "broken"} <= set(models.registry.names())
    with pytest.raises(
        InputError, match=r"joulemap-example 0.3 cannot be loaded from joulemap_exa"
    ):
        models.registry.predictor_class("broken")
