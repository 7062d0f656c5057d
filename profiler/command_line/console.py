"""What the command line shows: sentences, tables, a campaign's progress."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from joulemap.showable_text import MAX_ERROR, showable

from ..campaign.plan_text import duration

if TYPE_CHECKING:
    from ...datasets import CostDataset, LayerProfiles, Visit
    from ...datasets.metrics import NoiseFloor
    from ...models import CrossValidation
    from ..report import Headline

# Messages and progress go to standard error, results to standard output.
ERRORS = Console(stderr=True, highlight=False, soft_wrap=True)
RESULTS = Console(highlight=False)
# A terminal gets a bar; a log gets a line this often.
LOG_EVERY_S = 30.0
# Of what is printed as one message.
MAX_SENTENCE = 20_000


def print_json(content: Any) -> None:
    """Print a result as JSON on standard output."""
    sys.stdout.write(json.dumps(content, indent=1, default=str) + "\n")


def print_error(text: str) -> None:
    """Print a sentence on standard error, whatever a device or a file wrote into it."""
    # Where it goes may be full: what is written to files goes on.
    with contextlib.suppress(OSError):
        ERRORS.print(showable(text, MAX_SENTENCE, has_lines=True), markup=False)


def print_line(text: str) -> None:
    """Print a sentence on standard output, whatever a file's name or content wrote into it."""
    RESULTS.print(showable(text, MAX_SENTENCE, has_lines=True), markup=False, soft_wrap=True)


class WarningPrinter:
    """Prints each warning once, as a sentence and not with the line of code that gave it."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, message: Warning | str, *_: object, **__: object) -> None:
        """Print the warning; whoever warned and where is left out."""
        text = str(message)
        if text not in self._said:
            self._said.add(text)
            print_error(f"warning: {text}")


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, has_numbers: bool = True
) -> None:
    """Print a result as a table on standard output.

    Args:
        title: What it shows.
        columns: Their headings.
        rows: Their cells.
        has_numbers: Whether all but the first column hold numbers, which are right-aligned.
    """
    RESULTS.print(showable(title), style="bold", markup=False)
    table = Table(show_edge=False)
    for index, column in enumerate(columns):
        justify: JustifyMethod = "right" if index and has_numbers else "left"
        # Names stay whole: they are typed again, or copied.
        table.add_column(column, justify=justify, overflow="fold", no_wrap=not index)
    for row in rows:
        table.add_row(*(escape(showable(cell)) for cell in row))
    RESULTS.print(table)


def print_list(sentences: Sequence[str]) -> None:
    """Print sentences as a list on standard output, each with a hanging indent."""
    table = Table.grid(padding=(0, 1))
    for sentence in sentences:
        table.add_row("-", escape(showable(sentence)))
    if sentences:
        RESULTS.print(table)


def percent(value: float | None) -> str:
    """Return a fraction as a percentage with one decimal, or `-`."""
    return "-" if value is None else f"{100 * value:.1f} %"


def noise_text(floor: NoiseFloor | None) -> str:
    """Return the noise floor as a sentence."""
    if floor is None:
        return "Noise floor unknown: no variant was measured twice."
    return (
        f"Noise floor {percent(floor.value)} ({percent(floor.low)} to {percent(floor.high)}, 95 %, "
        f"{floor.num_pairs} variants measured again)."
    )


def print_cross_validation(table: CrossValidation) -> None:
    """Print models' errors on held-out variants, with the noise floor below."""
    print_table(
        f"{table.target}: error on held-out variants ({table.num_samples} variants, 5 folds)",
        ("model", "error", "spread over folds", "Spearman"),
        [
            [row.model, percent(row.mape), percent(row.mape_std), f"{row.spearman:.3f}"]
            for row in table.rows
        ],
    )
    RESULTS.print(noise_text(table.noise_floor))


def print_findings(file: Path, target: str) -> None:
    """Print what the predictor of a target in a file says about what it found."""
    from ... import models

    print_list(models.load(file, target).describe())


def print_headline(headline: Headline) -> None:
    """Print a report's headline figures and warnings."""
    error, held_out = headline.error, "held-out " if headline.is_held_out else ""
    ends = (
        f" ({percent(error.low)} to {percent(error.high)}, 95 %)" if error.low == error.low else ""
    )
    RESULTS.print(
        f"{showable(headline.target)} of {headline.num_variants} variants of {showable(headline.network)}: "
        f"{held_out}error {percent(error.value)}{ends}.",
        markup=False,
    )
    RESULTS.print(noise_text(headline.noise_floor))
    print_list(headline.warnings)


def error_text(dataset: CostDataset, cost: str) -> str:
    """Return how precise a dataset's rows are, as a sentence."""
    low, high = dataset.interval(cost)
    known = sorted(value for value in (high - low) / 2 / dataset.cost(cost) if value >= 0)
    if not known:
        return "No intervals: the table has none."
    return (
        f"95 % intervals: +-{percent(known[len(known) // 2])} for half of the variants, at most "
        f"+-{percent(known[-1])}."
    )


class CampaignProgress:
    """Shows a campaign on standard error: a bar with remaining time and noise, or log lines."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: Any = None
        self._total = self._planned = self._done = 0
        self._recent: deque[float] = deque(maxlen=60)
        self._logged = 0.0

    def message(self, text: str) -> None:
        """Print one sentence."""
        print_error(text)

    def started(self, total: int, done: int, visit_s: float) -> None:
        """Show the bar."""
        self._total, self._planned, self._done = total, total, done
        if total == done:
            return
        self._recent.append(time.monotonic())
        self._logged = time.monotonic()
        if ERRORS.is_terminal:
            self._bar = Progress(
                TextColumn("measuring"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[status]}"),
                console=ERRORS,
                # Drawn between visits only: on this machine a redraw would be measured too.
                auto_refresh=False,
            )
            self._task = self._bar.add_task("", total=total, completed=done, status="")
            self._bar.start()

    def visited(self, visit: Visit, done: int, noise: float | None) -> None:
        """Move on by one visit."""
        now = time.monotonic()
        self._recent.append(now)
        if visit.error is not None:
            self.message(
                f"visit {visit.sequence + 1} failed and is tried again: {showable(visit.error, MAX_ERROR)}"
            )
        # Rejected visits are made again and imprecise variants visited further: the total grows.
        self._done, self._total = done, max(self._total, done)
        per_visit = (now - self._recent[0]) / max(1, len(self._recent) - 1)
        left = duration(per_visit * (self._total - self._done)) + " left"
        if done >= self._planned:
            left = "further ones"  # How many is seen when each round is judged.
        status = f"{left}, noise {percent(noise)}"
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, total=self._total, status=status)
            self._bar.refresh()
        elif now - self._logged >= LOG_EVERY_S:
            self._logged = now
            self.message(f"{self._done} of {self._total} visits, {status}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def layers_text(profiles: LayerProfiles) -> str:
    """Return how many variants' layers were timed, and how far to trust their times."""
    return (
        f"The layers of {len(profiles)} variants are timed as well: the runtime's profiler makes "
        f"runs {percent(profiles.overhead)} longer, and {percent(profiles.unassigned_share)} of "
        "their time belongs to no layer."
    )
