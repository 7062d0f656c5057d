"""The main job on this machine in under three minutes."""

from __future__ import annotations

import io
import time
from pathlib import Path

from matplotlib.figure import Figure

from joulemap.regular_files import write_whole

from ... import models
from ..campaign.plan_text import duration
from ..campaign.protocol import Protocol
from ..campaign.run import profile
from ..report import write_report
from ..report.quantities import quantity
from . import console
from .fitting import fit_and_save

NETWORK = "mobilenet_v1"
PROTOCOL = Protocol(visits=2, max_visit_s=0.4, max_further_visits=1)


def run_demo(out: Path, samples: int) -> None:
    """Profile this machine, fit a cost model, export it, report, and say where everything lies.

    Args:
        out: Folder for everything.
        samples: Width vectors to measure.

    Raises:
        InputError: The folder holds something else.
        DeviceError: The agent cannot run here.
    """
    began = time.monotonic()
    print_ = console.RESULTS.print
    print_(f"[bold]1. Measure[/bold] {samples} variants of {NETWORK} on this machine")
    with console.CampaignProgress() as progress:
        dataset = profile(
            "local:",
            NETWORK,
            samples=samples,
            out=out / "campaign",
            sampling="aligned",
            protocol=PROTOCOL,
            observer=progress,
        )
    latency = dataset.latency_s
    print_(
        f"Latency of one image: {quantity(float(latency.min()), 's')} to "
        f"{quantity(float(latency.max()), 's')}."
    )
    print_(console.noise_text(dataset.noise_floor()))

    print_("\n[bold]2. Fit[/bold] cost models and test them on variants they have not seen")
    file = out / "predictor.safetensors"
    for table in fit_and_save([out / "campaign"], "aligned", ["latency_s"], file):
        console.print_cross_validation(table)
        console.print_findings(file, table.target)
    predictor = models.load(file)

    print_("\n[bold]3. Use[/bold] the model: exported, plotted, differentiated")
    models.to_onnx_file(predictor, out / "predictor.onnx")
    models.to_torch_file(predictor, out / "predictor.pt2")
    figure = Figure(figsize=(6, 5), layout="constrained")
    predictor.plot_error(ax=figure.add_subplot())
    picture = io.BytesIO()
    figure.savefig(picture, dpi=150)
    write_whole(out / "error.png", lambda file: file.write(picture.getvalue()))
    _show_gradient(predictor)
    write_report(out / "campaign", predictor, out / "report.html")

    console.print_line(f"\nDone in {duration(time.monotonic() - began)}. In {out}:")
    for name, what in (
        ("report.html", "everything on one page: open it in a browser"),
        ("campaign/", "the measurements: journal, Parquet, dataset card"),
        ("predictor.safetensors", "the cost model: joulemap.models.load(...)"),
        ("predictor.onnx, .pt2", "the same without joulemap: onnxruntime, torch.export.load"),
        ("error.png", "predicted against measured"),
    ):
        print_(f"  {name:<22} {what}", soft_wrap=True)


def _show_gradient(predictor: models.Predictor) -> None:
    import torch

    cost = predictor.to_torch(smooth=True)
    spec = cost.spec
    assert spec is not None  # noqa: S101 - fitted on a campaign
    widths = torch.tensor([float(width.max) for width in spec.widths], requires_grad=True)
    total = cost(widths)
    (gradient,) = torch.autograd.grad(total, widths)
    per_width = sorted(zip(spec.width_names, gradient.tolist(), strict=True), key=lambda p: -p[1])
    dearest = ", ".join(f"{name} {quantity(max(value, 0.0), 's')}" for name, value in per_width[:3])
    console.RESULTS.print(
        f"Full network: {quantity(float(total.detach()), 's')}. Dearest channels, each: {dearest}."
    )
