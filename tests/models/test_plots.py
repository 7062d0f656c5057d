from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from joulemap import InputError
from joulemap.models import BilinearPredictor
from joulemap.models.base.predictor import Predictor
from joulemap.models.testing import ArrayDataset


@pytest.fixture(scope="module")
def predictor(dataset: ArrayDataset) -> Predictor:
    return BilinearPredictor().fit_dataset(dataset, "energy_j")


@pytest.fixture
def ax(tmp_path: Path) -> Iterator[Axes]:
    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    yield figure.add_subplot()
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def texts(ax: Axes) -> str:
    legend = ax.get_legend()
    return " | ".join(text.get_text() for text in legend.get_texts()) if legend else ""


def test_error_of_held_out_measurements(predictor: Predictor, ax: Axes) -> None:
    assert predictor.plot_error(ax=ax) is ax
    assert ax.get_xlabel() == "measured energy [mJ]"
    assert ax.get_ylabel() == "predicted energy [mJ]"
    assert "noise floor 1.60%" in texts(ax)
    assert "150 held-out measurements, error 1." in texts(ax)
    assert ax.get_title(loc="left") == "alexnet on array (Bilinear)"


def test_error_on_another_dataset(predictor: Predictor, dataset: ArrayDataset, ax: Axes) -> None:
    X, y, _ = dataset.xyw("energy_j")
    other = ArrayDataset(dataset.spec, X, {"energy_j": y * 1.5})
    predictor.plot_error(other, ax)
    assert "150 measurements, error 33." in texts(ax)
    assert "noise floor" not in texts(ax)


def test_width(predictor: Predictor, ax: Axes) -> None:
    assert predictor.plot_width("conv1", ax) is ax
    assert ax.get_xlabel() == "conv1 [channels]; others at their largest"
    assert ax.get_ylabel() == "energy [mJ]"
    assert "90% interval of the mean" in texts(ax)
    (line,) = ax.get_lines()
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    np.testing.assert_array_equal(x, np.arange(1, 65))
    full = predictor.predict([predictor.spec.max_widths])[0]  # type: ignore[union-attr]
    assert y[-1] == pytest.approx(full * 1e3)


def test_width_with_others_given(predictor: Predictor, ax: Axes) -> None:
    predictor.plot_width("fc6", ax, points=5, others={"fc7": 100})
    assert ax.get_xlabel() == "fc6 [channels]; fc7 = 100, rest at their largest"
    (line,) = ax.get_lines()
    assert len(np.asarray(line.get_xdata())) == 5


def test_without_spec_unit_and_noise(ax: Axes) -> None:
    X = np.arange(1.0, 31.0).reshape(10, 3)
    plain = BilinearPredictor().fit(X, X.sum(axis=1))
    plain.plot_width("x1", ax)
    assert ax.get_ylabel() == "cost"
    plain.plot_error(ax=ax)


def test_own_figure_when_none_is_given(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib import pyplot as plt

    plt.switch_backend("agg")
    ax = predictor.plot_error()
    assert ax.figure in [plt.figure(number) for number in plt.get_fignums()]
    plt.close("all")


def test_wrong_input(predictor: Predictor, dataset: ArrayDataset) -> None:
    with pytest.raises(InputError, match="no width 'conv9'; known: conv1"):
        predictor.plot_width("conv9")
    with pytest.raises(InputError, match="no width 'fc9'"):
        predictor.plot_width("conv1", others={"fc9": 3})
    with pytest.raises(InputError, match="points is 1"):
        predictor.plot_width("conv1", points=1)
    made = BilinearPredictor.from_coefficients(dataset.spec, np.ones(8), 0.0)
    with pytest.raises(InputError, match="pass a dataset"):
        made.plot_error()
