"""The command line. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from joulemap import JoulemapError, __version__, interruption

from . import console, standard_streams
from . import profile_options as options
from .outside_commands import CommandGroup

app = typer.Typer(
    name="joulemap",
    help="Measure what a neural network costs on a device as its widths change, and fit "
    "differentiable cost models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    cls=CommandGroup,
)

# What typer makes of Ctrl-C.
INTERRUPTED = 130
# Commands that find what they did before.
CONTINUED = {"profile", "demo"}

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
AllowDifferent = Annotated[
    bool, typer.Option("--allow-different", help="Also under unlike conditions; they are named.")
]
Target = Annotated[str, typer.Option(help="Cost column, several separated by commas.")]


def _version(*, value: bool) -> None:
    if value:
        sys.stdout.write(f"joulemap {__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Options that hold for every command."""
    del version, debug  # `--debug` is read by `main`, which is where errors end


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything it makes.")] = Path(
        "joulemap-demo"
    ),
    samples: Annotated[int, typer.Option(help="Width vectors to measure.")] = 40,
) -> None:
    """Profile this machine, fit, export, report: the main job in under three minutes."""
    from .demo import run_demo

    run_demo(out, samples)


@app.command()
def devices(
    *,
    as_json: Json = False,
) -> None:
    """List what can be profiled from here; no host is asked over the network."""
    from .device_list import list_devices

    found = list_devices()
    if as_json:
        console.print_json(found.to_dict())
        return
    rows = [[device.url, device.kind, device.description] for device in found.devices]
    console.print_table("Devices", ("device", "kind", "what it is"), rows, has_numbers=False)
    advice = [f"{device.url}: {device.advice}" for device in found.devices if device.advice]
    if advice or found.notes:
        console.RESULTS.print()
        console.print_list([*advice, *found.notes])


@app.command()
def probe(
    url: options.Url,
    *,
    accept_new_host_key: options.AcceptNewHostKey = False,
    as_json: Json = False,
) -> None:
    """Say what a device is, which runtimes it has, and how to get what is missing."""
    from ...device_agents.interfaces import ConnectOptions
    from ..campaign.devices import open_device
    from .device_text import print_probe

    with open_device(url, connect=ConnectOptions(accept_new_host_key)) as device:
        fingerprint = device.probe().to_dict()
        if device.is_remote:
            fingerprint["clocks"] = device.clocks()
        meters = device.find_meters().to_dict()
        is_simulated, runs_networks = device.is_simulated, device.runs_networks
    if as_json:
        console.print_json(fingerprint | {"meters": meters})
        return
    if is_simulated:
        meterless = "Meters: simulated. Its joules rest on an assumed cost per operation."
    else:
        meterless = "Meters: none. Energy is left empty in what this device measures."
    print_probe(url, fingerprint, meters, meterless, runs_networks=runs_networks)


@app.command()
def profile(
    context: typer.Context,
    url: options.ConfiguredUrl = None,
    network: options.Network = None,
    out: options.Out = None,
    config: options.Config = None,
    samples: options.Samples = 100,
    sampling: options.Sampling = "sobol",
    runtime: options.Runtime = "onnxruntime",
    batch: options.Batch = 1,
    resolution: options.Resolution = None,
    inputs: options.Inputs = None,
    freeze: options.Freeze = None,
    multiples: options.Multiples = None,
    precision: options.Precision = "fp32",
    threads: options.Threads = 1,
    seed: options.Seed = 0,
    sources: options.Sources = None,
    visits: options.Visits = 3,
    visit_s: options.VisitS = 0.6,
    rel_error: options.RelError = 0.03,
    time_cap: options.TimeCap = None,
    layers: options.Layers = 0,
    meter: options.Meter = "auto",
    energy_rel_error: options.EnergyRelError = 0.03,
    energy_window_s: options.EnergyWindowS = 1.0,
    max_energy_window_s: options.MaxEnergyWindowS = 120.0,
    *,
    max_temperature: options.MaxTemperature = None,
    temperature_zone: options.TemperatureZone = None,
    lock_frequency: options.LockFrequency = False,
    clean: options.Clean = False,
    accept_new_host_key: options.AcceptNewHostKey = False,
    dry_run: options.DryRun = False,
    as_json: Json = False,
) -> None:
    """Measure how a device's cost depends on a network's widths. Continues where it stopped.

    With --from it measures what tells most about how this device differs from those.
    """
    from ...datasets import LayerProfiles
    from ...datasets.journal import FILE_NAME, read_journal
    from ...device_agents.interfaces import ConnectOptions
    from ..campaign.advice import advise
    from ..campaign.devices import clean_device
    from ..campaign.run import run
    from ..campaign.transfer_points import load_sources
    from .asked_settings import asked_settings, typed

    settings = asked_settings(config, typed(context))
    chosen_by = load_sources(settings.sources)
    if dry_run:
        from .dry_run import print_outline

        print_outline(settings, chosen_by, as_json=as_json)
        return
    connect = ConnectOptions(accept_new_host_key)
    with console.CampaignProgress() as progress:
        dataset = run(settings, observer=progress, sources=chosen_by, connect=connect)
    advice = advise(read_journal(settings.folder / FILE_NAME))
    if settings.layers:
        advice = [*advice, console.layers_text(LayerProfiles.load(settings.folder))]
    if clean and settings.url:
        advice = [*advice, *clean_device(settings.url, connect)]
    _print_dataset(dataset, settings.folder, as_json=as_json, advice=advice)


@app.command()
def networks(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A network of the zoo, or your own, as --network of profile takes it; else the zoo."
        ),
    ] = None,
    resolution: options.Resolution = None,
    inputs: options.Inputs = None,
    freeze: options.Freeze = None,
    multiples: options.Multiples = None,
    *,
    as_json: Json = False,
) -> None:
    """List the zoo, or print a network's widths: their ranges, who makes and reads them, what is frozen."""
    from .asked_settings import multiple_of
    from .network_text import print_network, print_zoo

    if model is None:
        print_zoo(as_json=as_json)
        return
    steps = dict(map(multiple_of, multiples or ()))
    print_network(model, resolution, inputs or (), freeze or (), steps, as_json=as_json)


@app.command(name="import")
def import_table(
    file: Annotated[Path, typer.Argument(help="A CSV file: widths and costs, one row each.")],
    spec: Annotated[
        str,
        typer.Option(help="A network of the zoo, module:function, FILE.py:function, or spec.json."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the dataset.")],
    unit: Annotated[
        list[str] | None,
        typer.Option(help="Unit of a cost column, such as latency=ms. Repeat for several."),
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Make a dataset of your own table."""
    from .tables import import_csv

    dataset = import_csv(file, spec, unit or [])
    dataset.save(out)
    _print_dataset(dataset, out, as_json=as_json)


@app.command()
def fit(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Datasets of one device and network; of several for layerwise."),
    ],
    out: Annotated[Path, typer.Option(help="File for the predictor.")],
    model: Annotated[
        str,
        typer.Option(
            help="aligned, bilinear, flops, params, gp, neural, trees, lookup, layerwise, "
            "systolic, transfer (with --from), or auto, which chooses and says why."
        ),
    ] = "aligned",
    target: Target = "latency_s",
    sources: options.From = None,
    *,
    allow_different: AllowDifferent = False,
    as_json: Json = False,
) -> None:
    """Fit a cost model; print its cross-validated error beside the noise floor and baselines."""
    from .fitting import fit_and_save

    tables = fit_and_save(
        folders, model, target.split(","), out, sources or [], allow_different=allow_different
    )
    if as_json:
        console.print_json({"file": str(out), "targets": [table.to_dict() for table in tables]})
        return
    for table in tables:
        console.print_cross_validation(table)
    for name in target.split(","):
        console.print_findings(out, name)
    console.print_line(f"Wrote {out}")


@app.command()
def predict(
    file: Annotated[Path, typer.Argument(help="A predictor file.")],
    widths: Annotated[str | None, typer.Option(help="Widths in channels: 32,64,...")] = None,
    csv: Annotated[Path | None, typer.Option(help="A CSV file with a column per width.")] = None,
    target: Annotated[str | None, typer.Option(help="Which cost, if the file has several.")] = None,
    coverage: Annotated[float, typer.Option(help="Coverage of the interval.")] = 0.9,
    *,
    allow_different: AllowDifferent = False,
    as_json: Json = False,
) -> None:
    """Predict the cost of width vectors, with the interval of one new measurement."""
    from ..report.quantities import quantity
    from .tables import predict_rows

    predictor, rows, differences = predict_rows(
        file,
        widths=widths,
        csv=csv,
        target=target,
        coverage=coverage,
        allow_different=allow_different,
    )
    if as_json:
        unlike = [difference.to_dict() for difference in differences]
        result = {"target": predictor.target_, "unit": predictor.unit_, "rows": rows}
        console.print_json(result | {"differences": unlike})
        return
    unit = predictor.unit_
    console.print_table(
        f"{predictor.target_} ({100 * coverage:g} % interval of one new measurement)",
        ("row", "cost", "from", "to"),
        [
            [str(number), *(quantity(row[key], unit) for key in ("cost", "low", "high"))]
            for number, row in enumerate(rows, start=1)
        ],
    )
    for difference in differences:
        console.ERRORS.print(f"warning: predicted although unlike: {difference}", markup=False)


@app.command()
def evaluate(
    file: Annotated[Path, typer.Argument(help="A predictor file.")],
    folder: Annotated[Path, typer.Argument(help="A dataset that it was not fitted on.")],
    target: Annotated[str | None, typer.Option(help="Which cost, if the file has several.")] = None,
    *,
    allow_different: AllowDifferent = False,
    as_json: Json = False,
) -> None:
    """Compare a saved predictor with the measurements of another dataset."""
    from .fitting import evaluate_file

    result = evaluate_file(file, folder, target, allow_different=allow_different)
    if as_json:
        console.print_json(result.to_dict())
        return
    console.print_table(
        f"{result.target} of {result.num_rows} variants",
        ("figure", "value"),
        [
            [result.error_name, console.percent(result.mape)],
            *(
                [["mean error of other rows", console.percent(result.mape_unseen)]]
                if result.num_training_rows and result.mape_unseen == result.mape_unseen
                else []
            ),
            ["within 5 %", console.percent(result.share_within_5)],
            ["within 10 %", console.percent(result.share_within_10)],
            ["Spearman", f"{result.spearman:.3f}"],
            ["inside the 90 % interval", console.percent(result.coverage_90)],
        ],
    )
    console.RESULTS.print(console.noise_text(result.noise_floor))
    for warning in result.warnings:
        console.ERRORS.print(f"warning: {warning}", markup=False)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A dataset; a campaign's folder shows drift too.")],
    predictor: Annotated[Path, typer.Option(help="A predictor file of the same network.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    target: Annotated[str | None, typer.Option(help="Which cost, if the file has several.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Write one HTML page that shows measurements, fit, and how far to trust them."""
    from ..report import write_report

    headline = write_report(folder, predictor, out, target)
    if as_json:
        console.print_json({"file": str(out), **headline.to_dict()})
        return
    console.print_headline(headline)
    console.print_line(f"Wrote {out}")


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="A predictor file.")],
    to: Annotated[str, typer.Option(help="onnx or torch.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write; beside the predictor if not given.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Which cost, if the file has several.")] = None,
    *,
    smooth: Annotated[
        bool, typer.Option(help="Write the surrogate for optimisers instead of the exact cost.")
    ] = False,
) -> None:
    """Write a cost model as a file that runs without joulemap."""
    from .fitting import export_file

    written = export_file(file, to, out, target, smooth=smooth)
    console.print_line(f"Wrote {written}")


ENERGY = "energy_j"


def _print_dataset(dataset: Any, out: Path, *, as_json: bool, advice: Sequence[str] = ()) -> None:
    cost = dataset.cost_names[0]
    floor = dataset.noise_floor(cost)
    if as_json:
        console.print_json(
            {
                "folder": str(out),
                "variants": len(dataset),
                "costs": {name: dataset.unit(name) for name in dataset.cost_names},
                "noise_floor": floor.to_dict() if floor else None,
                "advice": list(advice),
            }
        )
        return
    console.print_line(f"{len(dataset)} variants in {out}")
    for note in dataset.verification.notes:
        console.print_error(f"warning: {note}")
    console.RESULTS.print(console.error_text(dataset, cost))
    console.RESULTS.print(console.noise_text(floor))
    if cost != ENERGY and ENERGY in dataset.cost_names and (dataset.cost(ENERGY) > 0).any():
        console.RESULTS.print(f"Energy: {console.error_text(dataset, ENERGY)}")
        console.RESULTS.print(f"Energy: {console.noise_text(dataset.noise_floor(ENERGY))}")
    console.print_list(advice)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 done, 1 the job failed, 2 bad input.

    A process that is the command's ends with 130, 143 or 129 where Ctrl-C, SIGTERM or SIGHUP stops
    it.
    """
    if arguments is None:
        interruption.take()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    is_debug = "--debug" in arguments
    interruption.say_at_end(_farewell(arguments))
    try:
        with warnings.catch_warnings():
            if not is_debug:
                warnings.showwarning = console.WarningPrinter()
            return _run(arguments, is_debug=is_debug)
    finally:
        # Whatever came of it; not by Python's end, where libraries may wait for their threads.
        if interruption.exit_code() is not None:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            interruption.end()


def _farewell(arguments: Sequence[str]) -> str:
    """Return what is said when the command is stopped."""
    command = next((each for each in arguments if not each.startswith("-")), "")
    goes_on = "continues" if command in CONTINUED else "begins again"
    return f"joulemap: interrupted; the same command {goes_on}"


def _run(arguments: list[str], *, is_debug: bool) -> int:
    """Run a command and return its exit code, however it and its output end."""
    standard_streams.prepare()
    return standard_streams.finish(_code_of(arguments, is_debug=is_debug), console.print_error)


def _code_of(arguments: list[str], *, is_debug: bool) -> int:
    try:
        result = app(arguments, prog_name="joulemap", standalone_mode=False)
    except JoulemapError as error:
        if is_debug:
            traceback.print_exc()
        console.print_error(f"joulemap: {error.full_text if is_debug else error}")
        return error.exit_code
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except (OSError, MemoryError) as error:
        if is_debug:
            traceback.print_exc()
        return _said(error)
    except Exception as error:
        # click's errors and exits carry their own code; typer may vendor click, so by attribute.
        code = getattr(error, "exit_code", None)
        if not isinstance(code, int):
            raise
        if hasattr(error, "format_message"):
            console.print_error(f"joulemap: {error.format_message()}")
        return code
    if result == INTERRUPTED:
        console.ERRORS.print(_farewell(arguments))
    return result if isinstance(result, int) else 0


def _said(error: OSError | MemoryError) -> int:
    """Say what the system refused and return the exit code: 2 where it names a file."""
    if isinstance(error, MemoryError):
        console.print_error("joulemap: there is not enough memory for this")
        return 1
    if standard_streams.is_about_output(error):
        if error.errno != errno.EPIPE:
            console.print_error(standard_streams.problem_text(error))
        return standard_streams.WRITE_FAILED
    named = "" if error.filename is None else f"{os.fsdecode(error.filename)} cannot be used: "
    console.print_error(f"joulemap: {named}{error.strerror or error}")
    return 1 if error.filename is None else 2
