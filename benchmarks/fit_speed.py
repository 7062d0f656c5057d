"""How long predictors take to fit 1,000 variants, and how far off they are on variants they never saw.

MobileNetV1 on the simulated Eyeriss: the array's energy, or latency, with 2 % of noise. For each predictor: the
seconds of one `fit` with its five held-out refits, on one thread, beside the bars (60 s, 600 s for
auto); the held-out error it states itself; and its error on fresh variants, as measured and without
the noise, median and extremes over seeds of sample and noise. The model of the array itself, which
made the costs, is left out. Seconds of the processor's time are beside those of the clock: others may
use the machine.

python benchmarks/fit_speed.py [--quantity latency] [--samples 1000] [--seeds 3] [--models gp ...]
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass

import numpy as np
import torch

from joulemap import InputError
from joulemap.datasets.metrics import mape
from joulemap.models import AutoPredictor, Predictor, SystolicArrayModel, registry
from joulemap.models.testing import draw_widths
from joulemap.profiler import networks

NOISE = 0.02
NUM_TEST = 1000
BARS = {"auto": 600}
BAR = 60


@dataclass(frozen=True)
class Sample:
    """Variants with measured and true costs.

    Attributes:
        widths: Shape (n, k), in channels.
        measured: With noise, shape (n,).
        true: Without, shape (n,).
    """

    widths: np.ndarray
    measured: np.ndarray
    true: np.ndarray


def draw(array: SystolicArrayModel, count: int, seed: int) -> Sample:
    """Return random variants and what they cost."""
    assert array.spec is not None
    widths = draw_widths(array.spec, count, seed)
    true = array.predict(widths)
    noise = np.random.default_rng([seed, 1]).standard_normal(count)
    return Sample(widths, true * np.exp(NOISE * noise), true)


def spread_of(values: list[float]) -> str:
    """Return the median and the extremes of fractions, in percent."""
    low, middle, high = (100 * f(values) for f in (min, np.median, max))
    return f"{middle:5.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Print one line per predictor."""
    parser = argparse.ArgumentParser(description="Seconds and errors of fits to 1,000 variants.")
    parser.add_argument("--quantity", choices=("energy", "latency"), default="energy")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", nargs="*", default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    spec = networks.get("mobilenet_v1")
    array = SystolicArrayModel(spec, hardware="eyeriss", quantity=arguments.quantity)
    tests = [draw(array, NUM_TEST, 1000 + seed) for seed in range(arguments.seeds)]
    floor = [mape(sample.measured, sample.true) for sample in tests]
    print(
        f"{arguments.samples} variants, {arguments.seeds} seeds, noise of {NOISE:.0%}: a perfect "
        f"model is off by {spread_of(floor)} % of what is measured"
    )
    print(f"{'model':10}{'clock s':>9}{'CPU s':>8}{'bar s':>7}  {'states %':20}", end="")
    print(f"{'error % (measured)':24}{'error % (truth)':24}")
    for name in arguments.models or [name for name in registry.names() if name != "systolic"]:
        stated, measured, true = [], [], []
        seconds, processor = [], []
        chosen: list[str] = []
        for seed, test in enumerate(tests):
            sample = draw(array, arguments.samples, seed)
            clock, cpu = time.perf_counter(), time.process_time()
            try:
                predictor: Predictor = registry.predictor_class(name)(spec)
                predictor.fit(sample.widths, sample.measured)
            except (InputError, TypeError) as error:
                print(f"{name:10} not fitted: {error}")
                break
            seconds.append(time.perf_counter() - clock)
            processor.append(time.process_time() - cpu)
            prediction = predictor.predict(test.widths)
            assert predictor.held_out_ is not None
            stated.append(predictor.held_out_.mean_error)
            measured.append(mape(test.measured, prediction))
            true.append(mape(test.true, prediction))
            if isinstance(predictor, AutoPredictor):
                chosen.append(registry.name_of(predictor.chosen))
        if not stated:
            continue
        print(
            f"{name:10}{np.median(seconds):9.1f}{np.median(processor):8.1f}"
            f"{BARS.get(name, BAR):7d}  {spread_of(stated):20}{spread_of(measured):24}"
            f"{spread_of(true):24}{' '.join(chosen)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
