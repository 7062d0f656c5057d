"""Prints how much faster the materialiser is than torch's exporters, all timed in this run.

python benchmarks/materialise.py [--network mobilenet_v1] [--variants 50] [--exports 6]

Every side turns the same uniform width vectors into a serialised ONNX model. What each of them
prepares is outside its time: the template, and the torch module for the exporters. onnxruntime
loads every model, outside the time too. The claims are for MobileNetV1; variants of AlexNet are
tens of megabytes, so that writing them takes most of the time of every side.
"""

from __future__ import annotations

import argparse
import gc
import io
import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from joulemap.profiler import networks
from joulemap.profiler.templates.export import export_template
from joulemap.profiler.testing import uniform_widths


def main() -> None:
    """Time the three sides and print their quartiles and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="mobilenet_v1", help="what networks.get takes")
    parser.add_argument("--variants", type=int, default=50, help="variants to materialise")
    parser.add_argument("--exports", type=int, default=6, help="variants for each exporter")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)

    spec = networks.get(arguments.network)
    vectors = uniform_widths(spec, arguments.variants, arguments.seed)
    sample = torch.zeros(1, *spec.input_shape)
    materialiser = export_template(spec).materialiser()
    materialiser.materialise(vectors[0])

    def default_export(module: nn.Module) -> bytes:
        program = torch.onnx.export(module, (sample,), dynamo=True, verbose=False)
        assert program is not None
        return bytes(program.model_proto.SerializeToString())

    def torchscript_export(module: nn.Module) -> bytes:
        model = io.BytesIO()
        # The annotation of `f` in torch omits the file objects that this exporter takes.
        torch.onnx.export(module, (sample,), model, dynamo=False)  # type: ignore[arg-type]
        return model.getvalue()

    ours, new, old = [], [], []
    for number, widths in enumerate(vectors):
        ours.append(timed(materialiser.materialise, widths))
        if number < arguments.exports:
            module = networks.build(spec, widths)
            new.append(timed(default_export, module))
            old.append(timed(torchscript_export, module))

    print(f"{spec.name}: milliseconds per variant, from widths to model bytes")
    print(f"{'':34}{'n':>4}{'25 %':>10}{'median':>10}{'75 %':>10}")
    for label, seconds in (
        ("joulemap materialiser", ours),
        ("torch.onnx.export (default)", new),
        ("torch.onnx.export (TorchScript)", old),
    ):
        low, middle, high = np.percentile(seconds, [25, 50, 75]) * 1e3
        print(f"{label:34}{len(seconds):4}{low:10.2f}{middle:10.2f}{high:10.2f}")
    print(f"onnxruntime loaded all {len(ours) + len(new) + len(old)} models")
    for label, seconds, least in (
        ("default exporter", new, 100),
        ("TorchScript exporter", old, 30),
    ):
        ratio = np.median(seconds) / np.median(ours)
        claim = f" (claimed: at least {least}x)" if spec.name == "mobilenet_v1" else ""
        print(f"faster than the {label}: {ratio:.0f}x{claim}")


def timed(make: Callable[[Any], bytes], argument: object) -> float:
    """Return the seconds of one call; onnxruntime then loads the model that it returned."""
    gc.collect()
    start = time.perf_counter()
    model = make(argument)
    seconds = time.perf_counter() - start
    onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return seconds


if __name__ == "__main__":
    main()
