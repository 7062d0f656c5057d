import subprocess
import sys

import pytest

from joulemap import InputError
from joulemap.models import BilinearPredictor, registry
from joulemap.models.base.predictor import Predictor


def test_names_are_sorted_and_unique() -> None:
    assert list(registry.names()) == sorted(set(registry.names()))
    classes = [entry.class_name for entry in registry.PREDICTORS.values()]
    assert len(classes) == len(set(classes))


@pytest.mark.parametrize("name", registry.names())
def test_every_line_leads_to_its_class_and_back(name: str) -> None:
    cls = registry.predictor_class(name)
    assert issubclass(cls, Predictor)
    assert registry.name_of(cls()) == name


def test_unknown_name_lists_the_known_ones() -> None:
    known = ", ".join(registry.names())
    with pytest.raises(InputError, match=f"'bilnear'; known: {known}"):
        registry.predictor_class("bilnear")


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.Entry("no_such_module", "X", install="pip install joulemap[extra]")
    monkeypatch.setitem(registry.PREDICTORS, "extra", entry)
    with pytest.raises(InputError, match=r"install it with: pip install joulemap\[extra\]"):
        registry.predictor_class("extra")


def test_a_class_outside_the_table_has_no_name() -> None:
    class Mine(BilinearPredictor):
        pass

    with pytest.raises(InputError, match="Mine is not in"):
        registry.name_of(Mine())


def test_the_table_is_readable_without_torch() -> None:
    code = (
        "import sys, joulemap.models as models; models.registry.names(); "
        "assert 'torch' not in sys.modules; models.BilinearPredictor; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
