"""Files that were damaged, cut, spliced or made up: never another number without a word.

Bits are flipped, bytes cut out and doubled, whole lines of journals taken out, moved and doubled,
columns of tables exchanged, JSON inside changed. What is read afterwards is what was written, or is
refused in at most 400 characters, or a warning says what is missing.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import random
import shutil
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from joulemap import JoulemapError, models
from joulemap.datasets import CostDataset, LayerProfiles, LayerTime, VariantProfile
from joulemap.datasets.dataset_card import dataset_card
from joulemap.datasets.verification import UnverifiedWarning
from joulemap.models.serialization import targets
from joulemap.models.systolic.hardware import SystolicHardware
from joulemap.profiler import Protocol, profile
from joulemap.profiler.command_line.tables import import_csv, resolve_spec
from trials import Outcome, Trial

QUICK = Protocol(visits=2, max_visit_s=0.05, has_revisits=False, max_further_visits=0)
LIMIT_S = 20
WEIRD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 1e308, -1e308, 10**400, 2**63, "", "x", "\x1b]0;you\x07", "\u202e"),
    *([], {}, [[]], {"a": 1}, "A" * 100_000, "/dev/zero", "NaN", [1] * 1000, "9" * 5000),
    *(float("nan"), float("inf"), "0*" * 2000, "factory:os:system", "<script>", "|a|b|"),
)


class Hang(BaseException):
    """A try took too long."""


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """End what takes longer than `LIMIT_S`."""

    def hang(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Return bytes with something flipped, cut, doubled or overwritten."""
    content = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        place = draw.randrange(len(content) or 1)
        length = draw.choice((1, 2, 8, 64, 1000))
        match draw.randrange(7):
            case 0 | 1 | 2 if content:
                content[place] ^= 1 << draw.randrange(8)
            case 3:
                del content[place:]
            case 4:
                content[place:place] = content[max(0, place - length) : place]
            case 5:
                del content[place : place + length]
            case _:
                content[place : place + length] = draw.randbytes(length)
    return bytes(content)


def changed(document: Any, draw: random.Random) -> Any:
    """Return a JSON document in which a value is another one, is gone, or has another name."""
    document = copy.deepcopy(document)
    at = document
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return document
        key = draw.choice(keys)
        if isinstance(at[key], dict | list) and at[key] and draw.random() < 0.8:
            at = at[key]
            continue
        match draw.randrange(4):
            case 0:
                del at[key]
            case 1 if isinstance(at, dict):
                at[f"{key}x"] = at.pop(key)
            case 2 if isinstance(at[key], int | float):
                at[key] = at[key] * draw.choice((-1, 10, 1e300, 0, 2))
            case _:
                at[key] = copy.deepcopy(draw.choice(WEIRD))
        return document


def rows_of(dataset: CostDataset) -> object:
    """Return everything that a dataset says, to be compared."""
    dataset_card(dataset)
    repr(dataset)
    frame = dataset.to_pandas().apply(_numbers).astype(str)
    about = json.dumps([dataset.device, dataset.protocol, dataset.source], sort_keys=True)
    return frame[sorted(frame.columns)].to_csv(), about, sorted(dataset.specs)


def _numbers(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column in which 0 and 0.0 are one number; truth values are none."""
    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return column.astype(float) if is_number else column


def predictions_of(path: Path) -> object:
    """Return what a predictor file predicts."""
    said = []
    for target in targets(path):
        model = models.load(path, target=target)
        model.describe()
        assert model.spec is not None
        widths = np.array([model.spec.max_widths, model.spec.min_widths], dtype=float)
        said.append((target, model.unit_, model.predict(widths).tolist()))
    return said


class Files:
    """A campaign, an imported table, layer profiles, predictors and what they hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            profile("sim:eyeriss", "lenet5", samples=6, out=folder / "run", protocol=QUICK)
            dataset = CostDataset.load(folder / "run")
            model = models.BilinearPredictor(dataset.spec)
            X = np.vstack([dataset.widths, dataset.widths // 2 + 1])
            models.save(model.fit(X, X.sum(axis=1) * 1e-3), folder / "predictor.safetensors")
        self.spec = dataset.spec
        names = [layer.name for layer in self.spec.layers]
        parts = tuple(LayerTime((name,), (1e-3, 1.1e-3)) for name in names)
        widths = self.spec.max_widths
        variant = VariantProfile(widths, parts, (2e-2, 3e-2), (1e-2, 1.1e-2))
        LayerProfiles(self.spec, (variant,)).save(folder / "layers.parquet")
        frame = dataset.to_pandas()[[*dataset.width_names, "latency_s"]]
        frame.to_csv(folder / "table.csv", index=False)
        (folder / "hardware.toml").write_text('name = "x"\nrows = 10\nclock_hz = 1e8\n')
        (folder / "spec.json").write_text(self.spec.to_json())
        self.parquet = (folder / "run/measurements.parquet").read_bytes()
        self.journal = (folder / "run/journal.jsonl").read_bytes()
        self.truth = {name: use(folder / name) for name, use in USES.items()}

    def place(self, name: str, content: bytes) -> Path:
        """Return a folder of its own with the file changed, and with what lies beside it."""
        folder = self.folder / "changed"
        shutil.rmtree(folder, ignore_errors=True)
        if name.startswith("run/"):
            shutil.copytree(self.folder / "run", folder / "run")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


USES: dict[str, Callable[[Path], object]] = {
    "run/journal.jsonl": lambda path: rows_of(CostDataset.load(path.parent)),
    "run/measurements.parquet": lambda path: rows_of(CostDataset.load(path)),
    "layers.parquet": lambda path: LayerProfiles.load(path).to_pandas().to_csv(),
    "predictor.safetensors": predictions_of,
}
# Nothing vouches for what people write: these may say something else, and may not crash.
WRITTEN: dict[str, Callable[[Path], object]] = {
    "table.csv": lambda path: rows_of(import_csv(path, "lenet5", [])),
    "spec.json": lambda path: resolve_spec(str(path)).at(resolve_spec(str(path)).max_widths).macs,
    "hardware.toml": SystolicHardware.from_toml,
}


def attempt(files: Files, name: str, content: bytes, *, may_differ: bool = False) -> str | None:
    """Use a changed file; say what is wrong with what comes of it."""
    path = files.place(name, content)
    use = {**USES, **WRITTEN}[name]
    try:
        with limited(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            said = use(path)
    except JoulemapError as error:
        return f"a message of {len(str(error))} characters" if len(str(error)) > 400 else None
    except Hang:
        return f"took longer than {LIMIT_S} s"
    except BaseException as error:  # noqa: BLE001 - whatever else comes out is a finding
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:100]} at {where.filename}:{where.lineno}"
    has_word = any(issubclass(each.category, UnverifiedWarning) for each in caught)
    if may_differ or has_word or said == files.truth[name]:
        return None
    return "says something else without a word"


def tries(
    seed: int, num: int, make: Callable[[Files, random.Random], tuple[str, bytes]]
) -> Outcome:
    """Return what so many changed files did."""
    draw = random.Random(f"files/{seed}")  # noqa: S311 - drawn again by the same seed
    failures = []
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    try:
        files = Files(folder)
        for number in range(num):
            name, content = make(files, draw)
            said = attempt(files, name, content, may_differ=name in WRITTEN)
            if said is not None:
                kept = Path(tempfile.gettempdir(), f"hostile-{seed}-{number}{Path(name).suffix}")
                kept.write_bytes(content)
                failures.append(f"seed {seed}, try {number}, {name}: {said}; kept as {kept}")
    finally:
        shutil.rmtree(folder)
    return Outcome(num, tuple(failures))


def any_bytes(files: Files, draw: random.Random) -> tuple[str, bytes]:
    """Damage bytes of any file."""
    name = draw.choice([*USES, *USES, *WRITTEN])
    return name, damaged((files.folder / name).read_bytes(), draw)


def one_bit(files: Files, draw: random.Random) -> tuple[str, bytes]:
    """Flip one bit of a file that something vouches for."""
    name = draw.choice(list(USES))
    content = bytearray((files.folder / name).read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return name, bytes(content)


def lines(files: Files, draw: random.Random) -> tuple[str, bytes]:
    """Take out, move, double or exchange whole lines of a journal."""
    there = files.journal.splitlines(keepends=True)
    first, second = draw.randrange(len(there)), draw.randrange(len(there))
    match draw.randrange(5):
        case 0:
            there[first], there[second] = there[second], there[first]
        case 1:
            there.insert(first, there[second])
        case 2:
            del there[first : max(first, second) + 1]
        case 3:
            there.insert(first, there.pop(second))
        case _:
            there.insert(first, b"\n")
    return "run/journal.jsonl", b"".join(there)


def columns(files: Files, draw: random.Random) -> tuple[str, bytes]:
    """Change columns of a table whose metadata stay."""
    table = pq.read_table(io.BytesIO(files.parquet))
    frame = table.to_pandas(ignore_metadata=True)
    first, second = draw.sample(list(frame.columns), 2)
    match draw.randrange(9):
        case 0:
            frame = frame.drop(columns=[first])
        case 1:
            values = [np.nan, np.inf, -1.0, 0, 1e308, "x", "\x1b[2J", None, True]
            frame[first] = draw.choice(values)
        case 2:
            frame[first] = frame[second].to_numpy()
        case 3:
            names = ("latency_s", "spec_id", "evil\x1b[2J_s", "z" * 5000 + "_j", f"{first}_s")
            frame = frame.rename(columns={first: draw.choice(names)})
        case 4:
            frame[first] = [[1, 2]] * len(frame)
        case 5:
            frame = frame.iloc[draw.choice((0, 1, 2)) :].iloc[::-1]
        case 6:
            frame[first] = [{"a": 1}] * len(frame)
        case 7:
            frame[first] = pd.Timestamp("2026-01-01")
        case _:
            row = draw.randrange(len(frame))
            if pd.api.types.is_float_dtype(frame[first]):
                frame.loc[row, first] *= draw.choice((10, 1.0000001, -1))
            else:
                frame = frame.drop(index=row)
    content = io.BytesIO()
    # By places: two columns may have one name now.
    arrays = [pa.array(frame.iloc[:, place], from_pandas=True) for place in range(frame.shape[1])]
    changed_table = pa.Table.from_arrays(arrays, names=list(frame.columns))
    pq.write_table(changed_table.replace_schema_metadata(table.schema.metadata), content)
    return "run/measurements.parquet", content.getvalue()


def documents(files: Files, draw: random.Random) -> tuple[str, bytes]:
    """Change the JSON in a file: the metadata of a table, a network."""
    if draw.random() < 0.4:
        text = json.dumps(changed(json.loads(files.spec.to_json()), draw))
        return "spec.json", text.encode("utf-8", "surrogatepass")
    table = pq.read_table(io.BytesIO(files.parquet))
    about = changed(json.loads(table.schema.metadata[b"joulemap"]), draw)
    content = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata({b"joulemap": json.dumps(about).encode()}), content
    )
    return "run/measurements.parquet", content.getvalue()


PROMISE = "another number never comes without a word, nor a traceback, nor a hang"
TRIALS = (
    Trial("files-bits", f"one flipped bit: {PROMISE}", 5, lambda s: tries(s, 300, one_bit), 600),
    Trial("files-bytes", f"damaged bytes: {PROMISE}", 5, lambda s: tries(s, 300, any_bytes), 600),
    Trial("files-lines", f"lines of journals: {PROMISE}", 5, lambda s: tries(s, 300, lines), 600),
    Trial("files-columns", f"columns: {PROMISE}", 5, lambda s: tries(s, 300, columns), 600),
    Trial("files-documents", f"JSON inside: {PROMISE}", 5, lambda s: tries(s, 300, documents), 600),
)
