"""Networks of users' own code: where it is found, that files run none of it, what its errors say."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from joulemap import InputError
from joulemap.datasets import NetworkSpec
from joulemap.profiler import Protocol, networks, profile
from joulemap.profiler.networks import factories
from joulemap.profiler.networks.registry import code_fingerprint

NETWORK = """
import blocks_{number}
from torch import nn
from joulemap.datasets import Width
from joulemap.profiler.networks import NetworkDefinition, SpecBuilder

print("imported")

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.relu, self.fc2 = nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3)

    def forward(self, x):
        return self.fc2(self.relu(self.fc1(x)))

def net(resolution=None):
    builder = SpecBuilder("own", (6,), [Width("a", blocks_{number}.WIDTH)])
    builder.linear("fc1", "a")
    builder.activation("relu")
    builder.linear("fc2", 3)
    print("made")
    return NetworkDefinition(builder.spec(), lambda spec, widths: Net(widths["a"]))

class Holder:
    made = net

def needs(a, b=1): return net()
def fails():
    x = 1
    return x / 0
def leaves(): raise SystemExit("bye")
def other(): return Net(3)
def bad_spec():
    SpecBuilder("own", (6,), [Width("a", 0)])
def bad_build():
    definition = net()
    def build(spec, widths):
        return Net(widths["b"])
    return NetworkDefinition(definition.spec, build)
def no_module():
    return NetworkDefinition(net().spec, lambda spec, widths: "text")
constant = 5
"""
BROKEN = {
    "raises": "x = 1\nraise ValueError('no weights')\n",
    "leaves": "import sys\n\nsys.exit(3)\n",
    "syntax": "def net(:\n    pass\n",
    "lacks": "import numpy\nimport no_such_module_anywhere\n",
}
numbers = itertools.count()
# A run of so small a network takes nanoseconds of a simulated device, and each is computed.
BRIEF = Protocol(
    visits=1,
    max_visit_s=1e-5,
    max_warm_up_s=1e-5,
    block_s=1e-6,
    min_run_s=1e-7,
    reference_s=1e-7,
    has_revisits=False,
    max_further_visits=0,
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a network of its own name in it."""
    monkeypatch.chdir(tmp_path)
    before = sys.path[:]
    yield tmp_path
    sys.path[:] = before


@pytest.fixture
def name(here: Path) -> str:
    number = next(numbers)
    (here / f"blocks_{number}.py").write_text("WIDTH = 8\n")
    (here / f"mynet_{number}.py").write_text(NETWORK.format(number=number))
    return f"mynet_{number}"


def features_of(module: nn.Module) -> int:
    return module.get_parameter("fc1.bias").numel()


def test_a_module_in_the_current_folder(name: str) -> None:
    spec = networks.get(f"{name}:net")
    assert spec.source == f"factory:{name}:net"
    assert features_of(networks.build(spec, [5])) == 5
    assert networks.get(f"{name}:Holder.made").name == "own"


@pytest.mark.parametrize("form", ["{}.py", "./{}.py", "deeper/../{}.py", "{here}/{}.py"])
def test_a_file(form: str, name: str, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "deeper").mkdir()
    spec = networks.get(f"{form.format(name, here=here)}:net")
    # However it is written, and from wherever: the same source, so the same campaign.
    assert spec.source.startswith(f"file:{name}.py:net@")
    assert len(spec.source.rpartition("@")[2]) == 64
    assert NetworkSpec.from_json(spec.to_json()) == spec
    assert features_of(networks.build(spec, [5])) == 5
    # What users print does not get between results.
    assert capfd.readouterr().out == ""


def test_a_file_elsewhere_whose_parts_lie_beside_it(
    name: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = here / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert networks.get(f"../{name}.py:net").source.startswith(f"file:{name}.py:net@")


def test_an_installed_module_is_not_hidden_by_the_current_folder(here: Path) -> None:
    (here / "colorsys.py").write_text("def net(): raise AssertionError\n")
    with pytest.raises(InputError, match="no function 'net'"):
        networks.get("colorsys:net")
    with pytest.raises(InputError, match=r"AssertionError \(colorsys.py, line 1\)"):
        networks.get("./colorsys.py:net")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("os:system", "'os:system' is a function of Python itself"),
        ("os:abort", "'os:abort' is a function of Python itself"),
        ("sys:exit", "'sys:exit' is a function of Python itself"),
        ("no_such_module_at_all:net", "none of that name in .* or on Python's path"),
        ("{name}.deeper:net", "cannot be imported"),
        ("{name}", r"there is no network '.*write module:function or FILE.py:function"),
        ("{name}.py", r"names no function; write FILE.py:function; it defines net, fails, leaves"),
        ("./{name}.py:", "names no function"),
        ("missing/{name}.py:net", "is not there"),
        (".:net", "cannot be imported|is no regular file"),
        ("./:net", "is no regular file"),
        ("{name}:missing", "no function 'missing'; it defines net, fails, leaves"),
        ("{name}:constant", "no function 'constant'"),
        ("{name}:needs", "cannot be called without its arguments a; a network factory needs none"),
        ("{name}:Net", "cannot be called without its arguments width"),
        ("{name}:fails", r"ZeroDivisionError: division by zero \({name}.py, line 31\)"),
        ("{name}:leaves", r"sys.exit: it ends the program with 'bye' \({name}.py, line 32\)"),
        ("{name}:other", "does not say what it is called with; give the shape: --input x=1x3x224"),
        ("{name}:bad_spec", r"width 'a' is 0, not an int >= 1 \({name}.py, line 35\)"),
        ("{name}:bad_build", r"KeyError: 'b' \({name}.py, line 39\)"),
        ("{name}:no_module", "returned a str, not a torch module"),
        ("" + "x" * 5000 + ":net", "cannot be imported"),
        ("\0:net", "cannot be imported"),
        ("./\0.py:net", "is not there"),
    ],
)
def test_a_network_that_cannot_be_used(given: str, message: str, name: str) -> None:
    def use() -> None:
        spec = networks.get(given.format(name=name))
        networks.build(spec, spec.max_widths)

    with pytest.raises(InputError, match=message.format(name=name)) as caught:
        use()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("raises", r"ValueError: no weights \({name}.py, line 2\)"),
        ("leaves", r"sys.exit: it ends the program with '3' \({name}.py, line 3\)"),
        ("syntax", r"SyntaxError: .* \({name}.py, line 1\)"),
        ("lacks", r"No module named 'no_such_module_anywhere' \({name}.py, line 2\)"),
    ],
)
@pytest.mark.parametrize("form", ["{}:net", "./{}.py:net"])
def test_a_module_that_cannot_be_imported(kind: str, message: str, form: str, here: Path) -> None:
    name = f"broken_{next(numbers)}"
    (here / f"{name}.py").write_text(BROKEN[kind])
    for _ in range(2):  # a module that failed once is not taken for a whole one
        with pytest.raises(InputError, match=message.format(name=name)):
            networks.get(form.format(name))


def test_the_command_line_says_it_in_one_sentence(name: str, here: Path) -> None:
    """As a console script, which does not look into the current folder by itself."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("joulemap")),
            *("profile", "sim:eyeriss", "--network", f"{name}:fails", "--out", "run"),
        ],
        cwd=here,
        env=os.environ | {"PYTHONSAFEPATH": "1", "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert f"ZeroDivisionError: division by zero ({name}.py, line 31)" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (here / "run").exists()


def test_the_same_command_continues_a_campaign_of_a_file(name: str, here: Path) -> None:
    options: dict[str, Any] = {"out": "run", "protocol": BRIEF, "samples": 3}
    assert len(profile("sim:eyeriss", f"./{name}.py:net", **options)) == 3
    again = profile("sim:eyeriss", f"{here}/{name}.py:net", **options | {"samples": 5})
    assert len(again) == 5
    (here / f"{name}.py").write_text((here / f"{name}.py").read_text() + "\n# changed\n")
    with pytest.raises(InputError, match=rf"network: own of file:{name}.py:net@.* there, own of"):
        profile("sim:eyeriss", f"./{name}.py:net", **options)


# -- specs from files --------------------------------------------------------------------------------


@pytest.fixture
def marked(here: Path) -> tuple[str, Path]:
    """A module that leaves a mark when it is imported."""
    number = next(numbers)
    mark = here / "mark"
    (here / f"blocks_{number}.py").write_text(
        f"open({str(mark)!r}, 'w').close()\nWIDTH = 8\n", encoding="utf-8"
    )
    (here / f"marked_{number}.py").write_text(NETWORK.format(number=number))
    sys.path.append(str(here))
    return f"marked_{number}", mark


def spec_of_a_file(source: str) -> NetworkSpec:
    import dataclasses

    return NetworkSpec.from_json(
        dataclasses.replace(networks.get("lenet5"), source=source).to_json()
    )


def test_a_spec_of_a_file_runs_nothing(marked: tuple[str, Path], tmp_path: Path) -> None:
    name, mark = marked
    for source in (f"factory:{name}:net", f"file:{name}.py:net@{'0' * 64}"):
        spec = spec_of_a_file(source)
        for act in (
            lambda spec: networks.build(spec, spec.max_widths),
            lambda spec: code_fingerprint(spec.source),
            lambda spec: profile("local:", spec, samples=1, out=tmp_path / "run"),
        ):
            with pytest.raises(InputError, match=f"'{name}.*allow_code=True"):
                act(spec)
    assert not mark.exists()
    assert not (tmp_path / "run").exists()


def test_it_runs_once_it_is_allowed_or_named(marked: tuple[str, Path]) -> None:
    name, mark = marked
    spec = spec_of_a_file(f"factory:{name}:net")
    with pytest.raises(InputError, match="has the widths a"):
        networks.build(spec, spec.max_widths, allow_code=True)
    assert mark.exists()
    assert factories.is_named(spec.source)


def test_only_the_very_file_is_allowed(marked: tuple[str, Path], here: Path) -> None:
    name, mark = marked
    spec = spec_of_a_file(f"file:{name}.py:net@{'0' * 64}")
    with pytest.raises(InputError, match="is not the file that the spec was made of"):
        networks.build(spec, spec.max_widths, allow_code=True)
    assert not mark.exists()
    own = networks.get(f"./{name}.py:net")
    factories._named.clear()
    read = NetworkSpec.from_json(own.to_json())
    with pytest.raises(InputError, match="allow_code"):
        networks.build(read, [3])
    assert features_of(networks.build(read, [3], allow_code=True)) == 3


def test_templates_follow_every_file_that_builds_the_network(name: str, here: Path) -> None:
    spec = networks.get(f"{name}:net")
    first = code_fingerprint(spec.source)
    assert first is not None
    assert code_fingerprint(spec.source) == first
    (blocks,) = here.glob("blocks_*.py")
    blocks.write_text("WIDTH = 8  # other\n")
    assert code_fingerprint(spec.source) != first


def test_a_function_itself() -> None:
    from joulemap.profiler.networks.lenet5 import lenet5

    spec = networks.get(lenet5)
    assert spec.source == "factory:joulemap.profiler.networks.lenet5:lenet5"
    assert networks.build(spec, spec.max_widths) is not None
    with pytest.raises(InputError, match="a name, a spec or a function, not a int"):
        networks.get(5)  # type: ignore[arg-type]
