"""The options of `joulemap profile`, by what they are about; other commands share some of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# Headings in the help.
WHAT, TIMES = "What is measured", "How times are measured"
ENERGY, DEVICE = "How energy is measured", "The device"
FROM_HELP = "Predictor file of another device. Repeat for several."

Url = Annotated[
    str, typer.Argument(help="The device: local:, ssh://user@host, adb:SERIAL or sim:NAME.")
]
# The file of --config may give these; then they are missing only where both lack them.
ConfiguredUrl = Annotated[
    str | None,
    typer.Argument(
        help="The device: local:, ssh://user@host, adb:SERIAL or sim:NAME; else the one in the "
        "file of --config."
    ),
]
Out = Annotated[
    Path | None, typer.Option(help="Folder of the campaign; an interrupted one continues.")
]
Config = Annotated[
    Path | None,
    typer.Option(help="TOML file of settings; options that are given here count before it."),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Print what would be measured; touch neither device nor folder."
    ),
]

Network = Annotated[
    str | None,
    typer.Option(
        help="A network of the zoo (joulemap networks), or your own: FILE.py:function, "
        "module:function, timm:NAME, torchvision:NAME, hf:CONFIG_CLASS or an ONNX file.",
        rich_help_panel=WHAT,
    ),
]
Samples = Annotated[
    int,
    typer.Option(help="Width vectors to measure.", rich_help_panel=WHAT),
]
Sampling = Annotated[
    str, typer.Option(help="sobol, uniform, lhs, aligned or active.", rich_help_panel=WHAT)
]
Runtime = Annotated[str, typer.Option(help="What executes variants.", rich_help_panel=WHAT)]
Batch = Annotated[int, typer.Option(help="Samples per call.", rich_help_panel=WHAT)]
Resolution = Annotated[
    int | None, typer.Option(help="Height and width of the input.", rich_help_panel=WHAT)
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        help="Shape of an input of your own network: NAME=1x3x224x224[:dtype]. Repeat for several.",
        rich_help_panel=WHAT,
    ),
]
Freeze = Annotated[
    list[str] | None,
    typer.Option(
        help="Pattern of widths or modules of your own network that keep their sizes, such as "
        "'layer4.*'. Repeat for several.",
        rich_help_panel=WHAT,
    ),
]
Multiples = Annotated[
    list[str] | None,
    typer.Option(
        "--multiple",
        help="PATTERN=N: these widths of your own network are multiples of N. Repeat for several.",
        rich_help_panel=WHAT,
    ),
]
Precision = Annotated[str, typer.Option(help="Number format.", rich_help_panel=WHAT)]
Threads = Annotated[int, typer.Option(help="Threads inside one operator.", rich_help_panel=WHAT)]
Seed = Annotated[
    int, typer.Option(help="Of the sample and the visits' order.", rich_help_panel=WHAT)
]
From = Annotated[list[Path] | None, typer.Option("--from", help=FROM_HELP)]
Sources = Annotated[list[Path] | None, typer.Option("--from", help=FROM_HELP, rich_help_panel=WHAT)]

Visits = Annotated[int, typer.Option(help="Visits per variant.", rich_help_panel=TIMES)]
VisitS = Annotated[
    float, typer.Option(help="Seconds of warm-up and blocks per visit.", rich_help_panel=TIMES)
]
RelError = Annotated[
    float,
    typer.Option(help="Aim: half the 95 % interval over the latency.", rich_help_panel=TIMES),
]
TimeCap = Annotated[
    float | None,
    typer.Option(help="Seconds on the device after which it stops.", rich_help_panel=TIMES),
]
Layers = Annotated[
    int,
    typer.Option(
        help="Variants whose single layers are timed as well.", min=0, rich_help_panel=TIMES
    ),
]

Meter = Annotated[
    str,
    typer.Option(
        help="What energy is read from: auto, none, or NAME[:CHANNEL], after a comma a second one "
        "that checks the first; joulemap probe lists them. Of a battery may be told "
        "battery?current_unit=mA&sign=-.",
        rich_help_panel=ENERGY,
    ),
]
EnergyRelError = Annotated[
    float,
    typer.Option(
        help="Aim: half the 95 % interval over a visit's energy; its window goes on until then.",
        rich_help_panel=ENERGY,
    ),
]
EnergyWindowS = Annotated[
    float,
    typer.Option(help="Seconds that a visit's window lasts at least.", rich_help_panel=ENERGY),
]
MaxEnergyWindowS = Annotated[float, typer.Option(help="... and at most.", rich_help_panel=ENERGY)]

MaxTemperature = Annotated[
    float | None,
    typer.Option(
        help="Let the device cool to this many deg C before each visit.", rich_help_panel=DEVICE
    ),
]
TemperatureZone = Annotated[
    str | None,
    typer.Option(
        help="Thermal zone whose temperature counts, one that joulemap probe lists; else the "
        "processor's.",
        rich_help_panel=DEVICE,
    ),
]
LockFrequency = Annotated[
    bool,
    typer.Option(
        "--lock-frequency",
        help="Hold the processor's clock while measuring, if permitted; put back afterwards.",
        rich_help_panel=DEVICE,
    ),
]
Clean = Annotated[
    bool,
    typer.Option(
        "--clean", help="Remove joulemap from the device afterwards.", rich_help_panel=DEVICE
    ),
]
AcceptNewHostKey = Annotated[
    bool,
    typer.Option(
        "--accept-new-host-key",
        help="Trust an SSH host without any known key this first time, and store its key.",
        rich_help_panel=DEVICE,
    ),
]
