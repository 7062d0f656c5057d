"""Networks that nobody wrote for joulemap: which derive a width space, and whether spec and variants agree.

For each network of `networks_list.py`, in a process of its own:

- the seconds to export it and to derive its spec, its widths, its layers, and the share of its
  parameters whose size a width chooses,
- ten random variants, built from the template and run in onnxruntime: do the outputs keep their shapes?
- multiply-accumulates and parameters of the spec at the largest, the smallest and three random width
  vectors against a count over the variants' operators, and at the largest against torch's.

Results go to a file as they come, so that a second call goes on where the first one stopped.

python benchmarks/networks.py [--only PATTERN ...] [--again] [--out runs/networks] [--page docs/networks.md]
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import multiprocessing
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
import traceback
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import networks_counts as counts
import numpy as np
import onnx
import onnxruntime
import torch
from networks_list import FIRST, SECOND, Network

from joulemap import InputError
from joulemap.profiler.networks.graph import DerivedNetwork, derive
from joulemap.profiler.networks.graph import axes as algebra
from joulemap.profiler.networks.graph.derive import counted
from joulemap.profiler.networks.importing import ImportedGraph, import_network
from joulemap.profiler.networks.packages import PACKAGES, PackageNetwork
from joulemap.profiler.templates.derived import derived_template

HERE = Path(__file__).parent
# A graph that is kept: itself, its example inputs, and what its export said.
MODEL, INPUTS, SAID = "model.onnx", "inputs.npz", "said.json"
NUM_VARIANTS = 10
NUM_RANDOM_COUNTS = 3
MAX_SECONDS = 420
MAX_BYTES = 6 << 30
BEGIN, END = "<!-- table of benchmarks/networks.py -->", "<!-- end of the table -->"


# -- one network, in its process -------------------------------------------------------------------


def imported(network: Network, out: Path) -> ImportedGraph:
    """Return a network's graph, as `--network` would have it."""
    scheme, _, name = network.name.partition(":")
    if scheme == "own":
        return import_network(f"{HERE / 'networks_own.py'}:{name}", inputs=network.inputs)
    if name.endswith(".onnx"):
        return import_network(_file(scheme, name, out), inputs=network.inputs)
    if scheme == "hf":
        import transformers

        config = getattr(transformers, name)(**network.config)
        if hasattr(config, "use_cache"):
            config.use_cache = False
        if network.model:
            module = getattr(transformers, network.model)(config)
        else:
            module = transformers.AutoModel.from_config(config)
        return import_network(module.float(), inputs=network.inputs)
    return import_network(network.name, inputs=network.inputs)


def _file(package: str, name: str, out: Path) -> Path:
    """Return a file of a package's wheel, which is fetched once and not installed."""
    folder = out / "files" / package
    found = [*folder.glob(f"*{name}")]
    if not found:
        fetch = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
        ]
        subprocess.run([*fetch, "--dest", str(folder), package], check=True)
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as content:
                for member in content.namelist():
                    if member.endswith(f"/{name}"):
                        (folder / name).write_bytes(content.read(member))
    return folder / name


@dataclass(frozen=True)
class Names:
    """What is left of a module when its graph is kept: the names of its parameters."""

    names: tuple[str, ...]

    def named_parameters(self) -> Iterator[tuple[str, None]]:
        """Yield the names."""
        for name in self.names:
            yield name, None


def exported(network: Network, out: Path) -> tuple[ImportedGraph, float, int | str | None]:
    """Return a network's graph, the seconds that it took, and what torch counts or why it does not."""
    begin = time.perf_counter()
    graph = imported(network, out)
    export_s = time.perf_counter() - begin
    if graph.module is None:
        return graph, export_s, None
    flops: int | str
    try:
        flops = counts.torch_macs(graph.module, graph.inputs, list(graph.inputs))
    except Exception as error:  # noqa: BLE001 - whatever it is, the row says it
        flops = " ".join(str(error).split())[:150]
    return graph, export_s, flops


def write_graph(
    folder: Path, graph: ImportedGraph, export_s: float, flops: int | str | None
) -> None:
    """Keep a graph with what its export said; a folder without the last file is not whole."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(graph.model, folder / MODEL)
    np.savez(folder / INPUTS, *graph.inputs.values())
    names = None if graph.module is None else [name for name, _ in graph.module.named_parameters()]
    said: dict[str, Any] = {
        "name": graph.name,
        "source": graph.source,
        "export_s": export_s,
        "macs": flops,
    }
    said |= {"parameters": names, "inputs": list(graph.inputs)}
    (folder / SAID).write_text(json.dumps(said))


def read_graph(folder: Path) -> tuple[ImportedGraph, float, int | str | None]:
    """Return what `write_graph` kept."""
    said = json.loads((folder / SAID).read_text())
    with np.load(folder / INPUTS, allow_pickle=False) as arrays:
        inputs = {name: arrays[f"arr_{place}"] for place, name in enumerate(said["inputs"])}
    module: Any = None if said["parameters"] is None else Names(tuple(said["parameters"]))
    graph = ImportedGraph(said["name"], said["source"], onnx.load(folder / MODEL), inputs, module)
    return graph, said["export_s"], said["macs"]


def measured(network: Network, out: Path) -> dict[str, Any]:
    """Return the row of a network."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    kept = out / "graphs" / network.name.replace(":", "_")
    if not (kept / SAID).exists():
        write_graph(kept, *exported(network, out))
    graph, export_s, flops = read_graph(kept)
    begin = time.perf_counter()
    found = derive(graph)
    derive_s = time.perf_counter() - begin
    begin = time.perf_counter()
    template = derived_template(found.spec, found.space)
    template_s = time.perf_counter() - begin
    return {
        "export_s": export_s,
        "derive_s": derive_s,
        "template_s": template_s,
        "nodes": len(graph.model.graph.node),
        "widths": len(found.spec.widths),
        "layers": len(found.spec.layers),
        "scaling": scaling_share(found),
        "frozen": sorted(
            {f"{item.operator}: {item.reason}"[:160] for item in found.space.solution.frozen}
        ),
        **compared(found, template.materialiser(), flops),
    }


def elements_of_parameters(found: DerivedNetwork) -> dict[str, int]:
    """Return the elements of the parameters that the graph holds, by name."""
    shapes = found.space.solution.tensors.shapes
    held = [item.name for item in found.graph.model.graph.initializer]
    names = counted(found.graph)
    return {name: math.prod(shapes[name]) for name in held if name in names}


def scaling_share(found: DerivedNetwork) -> float:
    """Return the share of parameters with an axis that widths choose."""
    elements = elements_of_parameters(found)
    axes = found.space.solution.axes
    scaling = [
        count
        for name, count in elements.items()
        if not all(map(algebra.is_constant, axes.get(name, ())))
    ]
    return sum(scaling) / max(1, sum(elements.values()))


def compared(found: DerivedNetwork, materialiser: Any, flops: int | str | None) -> dict[str, Any]:
    """Return how many variants ran, and at which widths the counts differ."""
    spec = found.spec
    draw = random.Random(spec.name)  # noqa: S311 - reproducible, not secret
    drawn = [
        tuple(draw.randrange(width.min, width.max + 1, width.multiple) for width in spec.widths)
        for _ in range(NUM_VARIANTS)
    ]
    tensors = found.space.solution.tensors
    shapes = [tensors.shapes[item.name] for item in found.graph.model.graph.output]
    inputs = materialiser.make_inputs()
    row: dict[str, Any] = {"ran": 0, "macs": 0, "params": 0, "counts": 0, "wrong": []}
    largest: Mapping[str, int] = {}
    vectors = [("largest", spec.max_widths), ("smallest", spec.min_widths)]
    vectors += [(f"random {number}", widths) for number, widths in enumerate(drawn)]
    for number, (label, widths) in enumerate(vectors):
        content = materialiser.materialise(widths)
        try:
            written = run(content, inputs)
        except Exception as error:  # noqa: BLE001 - whatever it is, the row says it
            row["wrong"].append(f"{label}: {' '.join(str(error).split())[:300]}")
            continue
        if written != shapes:
            row["wrong"].append(f"{label}: outputs of {written} and not {shapes}"[:200])
            continue
        row["ran"] += label.startswith("random")
        if number >= 2 + NUM_RANDOM_COUNTS:
            continue
        row["counts"] += 1
        resolved = spec.at(widths)
        macs = counts.variant_macs(content, inputs)
        elements = counts.initializer_elements(content)
        largest = largest or elements
        params = counts.variant_parameters(
            largest, elements, found.space.solution.sources, elements_of_parameters(found)
        )
        if label == "largest":
            total = sum(elements_of_parameters(found).values())
            row.update(total_macs=resolved.macs, total_params=total)
            if params is None and resolved.params == total:
                params = total
        row["macs"] += macs == resolved.macs
        row["params"] += params == resolved.params
        for what, mine, other in (
            ("MACs", resolved.macs, macs),
            ("params", resolved.params, params),
        ):
            if mine != other:
                row["wrong"].append(f"{label}: {what} {mine} and counted {other}")
    if isinstance(flops, str):
        row["wrong"].append(f"torch counts nothing: {flops}")
    elif flops is not None:
        layers = spec.at(spec.max_widths).layers
        own = sum(item.macs for item in layers if item.kind != "recurrent")
        # Some of torch's recurrent layers are products to it, others nothing.
        row["torch"] = flops in (own, sum(item.macs for item in layers))
        if not row["torch"]:
            row["wrong"].append(f"largest: MACs {own} and torch counts {flops}")
    return row


def run(content: bytes, inputs: Mapping[str, np.ndarray]) -> list[tuple[int, ...]]:
    """Return the shapes that a variant writes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return [np.shape(value) for value in session.run(None, dict(inputs))]


def one(network: Network, out: Path, pipe: Connection) -> None:
    """Send the row of a network, with its reason where it fails."""
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_BYTES, MAX_BYTES))
    try:
        row = measured(network, out)
    except InputError as error:
        row = {"reason": str(error)[:400]}
    except MemoryError:
        row = {"reason": f"more than {MAX_BYTES >> 30} GiB of memory"}
    except Exception as error:  # noqa: BLE001 - whatever it is, the row says it
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        text = " ".join(str(error).split())[:250]
        row = {"reason": f"{type(error).__name__}: {text} ({place})"}
    pipe.send(row)


# -- all of them -----------------------------------------------------------------------------------


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    """Return the last row of each network that a file of results holds."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def measure_all(wanted: Sequence[Network], out: Path, results: Path) -> None:
    """Append the row of each network to the results, each from a process of its own."""
    # Processes are forked from this one, which has imported what an export needs.
    PackageNetwork.named("timm:resnet18")()
    importlib.import_module("transformers")
    torch.set_num_threads(1)
    import_network(f"{HERE / 'networks_own.py'}:mlp")
    fork = multiprocessing.get_context("fork")
    for network in wanted:
        receiver, sender = fork.Pipe(duplex=False)
        process = fork.Process(target=one, args=(network, out, sender))
        begin = time.perf_counter()
        process.start()
        sender.close()
        row: dict[str, Any] = {"name": network.name}
        try:
            in_time = receiver.poll(MAX_SECONDS)
            row |= receiver.recv() if in_time else {"reason": f"more than {MAX_SECONDS} s"}
        except EOFError:
            process.join()
            row["reason"] = f"its process ended with {process.exitcode}"
        process.kill()
        process.join()
        row["total_s"] = time.perf_counter() - begin
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(line_of(row), flush=True)


def is_right(row: Mapping[str, Any]) -> bool:
    """Return whether every variant ran and every count agreed."""
    return "reason" not in row and row["ran"] == NUM_VARIANTS and not row["wrong"]


def line_of(row: Mapping[str, Any]) -> str:
    """Return a row for the terminal."""
    if "reason" in row:
        return f"{row['name']:42} {row['total_s']:6.0f} s  NONE: {row['reason'][:300]}"
    checks = (
        f"{row['ran']:2}/{NUM_VARIANTS} ran, MACs {row['macs']}/5, parameters {row['params']}/5"
    )
    return (
        f"{row['name']:42} {row['total_s']:6.0f} s  {row['widths']:4} widths {row['layers']:4} layers "
        f"{row['scaling']:7.1%}  export {row['export_s']:5.1f} s derive {row['derive_s']:5.2f} s  "
        f"{checks}, torch {row.get('torch')}  {'; '.join(row['wrong'][:2])}"
    )


# -- the page --------------------------------------------------------------------------------------


def section(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the measured part of the page."""
    versions = ", ".join(_versions())
    conditions = (
        f"Measured with {versions}, Python {platform.python_version()}, one thread of a "
        f"{platform.machine()} machine. Convolutional networks of timm have inputs of 128x128, the "
        "others those that they were made for; networks of transformers have two layers. Seconds are "
        "of one run, on a machine with other work, and say the order."
    )
    parts = [conditions]
    for title, networks in (("First list", FIRST), ("Second list", SECOND)):
        measured_rows = [rows[item.name] for item in networks if item.name in rows]
        if measured_rows:
            waiting = [f"`{item.name}`" for item in networks if item.name not in rows]
            parts += [f"### {title}", summary(measured_rows)]
            if waiting:
                parts.append(f"{len(waiting)} of the list have no row here: {', '.join(waiting)}.")
            parts.append(table(measured_rows))
            missing = [row for row in measured_rows if not is_right(row)]
            if missing:
                lines = [f"- `{row['name']}`: {reason_of(row)}" for row in missing]
                parts += ["What is not right:", "\n".join(lines)]
    return "\n\n".join(parts)


def _versions() -> list[str]:
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for package in ("torch", "onnxruntime", *PACKAGES.values()):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the sentences above a table."""
    derived = [row for row in rows if "reason" not in row]
    if not derived:
        return f"None of {len(rows)} networks derives a space."
    right = sum(map(is_right, rows))
    ran = sum(row["ran"] == NUM_VARIANTS for row in derived)
    shares = [row["scaling"] for row in derived]
    low = sorted((row for row in derived if row["scaling"] < 0.5), key=lambda row: row["scaling"])
    few = ", ".join(f"`{row['name']}` {row['scaling']:.0%}" for row in low)
    slow = max(derived, key=lambda row: row["derive_s"])
    return (
        f"{len(derived)} of {len(rows)} networks derive a space ({len(derived) / len(rows):.0%}); of "
        f"{ran} all {NUM_VARIANTS} variants run with unchanged output shapes; of {right} every count "
        f"agrees as well. On average {statistics.mean(shares):.1%} of the parameters scale"
        f"{f'; less than half of {few}' if few else ''}. Deriving takes "
        f"{statistics.median(row['derive_s'] for row in derived):.2f} s in the median, and at most "
        f"{slow['derive_s']:.1f} s (`{slow['name']}`, {slow['nodes']} operators)."
    )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a table in Markdown."""
    titles = (
        "network",
        "widths",
        "parameters that scale",
        "layers",
        "export, s",
        "derive, s",
        "variants that run",
        "MACs",
        "parameters",
        "torch's MACs",
    )
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        if "reason" in row:
            lines.append(f"| `{row['name']}` | none | | | | | | | | |")
            continue
        torch_cell = {True: "equal", False: "differ", None: ""}[row.get("torch")]
        lines.append(
            f"| `{row['name']}` | {row['widths']} | {row['scaling']:.1%} | {row['layers']} | "
            f"{row['export_s']:.1f} | {row['derive_s']:.2f} | {row['ran']} of {NUM_VARIANTS} | "
            f"{row['macs']} of 5 | {row['params']} of 5 | {torch_cell} |"
        )
    return "\n".join(lines)


def reason_of(row: Mapping[str, Any]) -> str:
    """Return why a row is not right."""
    if "reason" in row:
        return str(row["reason"])
    return "; ".join(row["wrong"][:2]) or f"{row['ran']} of {NUM_VARIANTS} variants ran"


def print_page(page: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the measured part between its marks."""
    text = page.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    page.write_text(f"{head}{BEGIN}\n\n{section(rows)}\n\n{END}{tail}", encoding="utf-8")


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN")
    parser.add_argument("--again", action="store_true", help="measure what has a row already")
    parser.add_argument("--out", type=Path, default=Path("runs/networks"))
    parser.add_argument("--page", type=Path, help="the page whose table is printed anew")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = arguments.out / "results.jsonl"
    rows = rows_of(results)
    wanted = [
        item
        for item in (*FIRST, *SECOND)
        if any(fnmatchcase(item.name, pattern) for pattern in arguments.only)
        and (arguments.again or item.name not in rows)
    ]
    measure_all(wanted, arguments.out, results)
    rows = rows_of(results)
    for title, networks in (("first list", FIRST), ("second list", SECOND)):
        of_list = [rows[item.name] for item in networks if item.name in rows]
        if of_list:
            print(f"{title}: {summary(of_list)}")
    if arguments.page is not None:
        print_page(arguments.page, rows)


if __name__ == "__main__":
    main()
