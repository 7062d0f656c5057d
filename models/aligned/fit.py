"""How the aligned model's rates, divisor, block and complexity are found in measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from joulemap import InputError

from ..base.intervals import FOLDS, SMALLEST_SCALE, FloatArray, assign_folds
from ..linear.predictor import fit_nonnegative
from .paired_choice import PairedErrors
from .structure import Compared, Structure
from .terms import COMPLEXITIES, TermTable, columns_of, functions_of

# ECC's bilinear model, with squared relative errors and with squared absolute ones.
BILINEAR_RELATIVE, BILINEAR_ABSOLUTE = -1, -2
# The terms that divisor and block are compared with.
SEARCH_COMPLEXITY = COMPLEXITIES.index("memory")
# A larger divisor or block must lower the error by this share to be believed.
LEAST_GAIN = 0.02
# Regimes must also be beyond chance, since advice follows from them; staircases more so, whose
# advice no price can check: rounding costs nothing there by the structure itself.
SURE, SURER = 0.95, 0.99
# Blocks alone advise nothing; that one is more likely better than not is enough.
LIKELY = 0.6
# Kinds of structures beside the simplest.
STAIRCASE, WITH_REGIMES = 1, 2
# Folds that all pairs of divisor and block are tried on, and how many go on to the others.
TRIED_FOLDS = 2
NUM_FINALISTS = 6
ITERATIONS = 6
# Enough to compare divisors and blocks.
ROUGH = 3
# From so many rows on the non-negative fit works on a triangular factor.
MANY_ROWS = 2000
# Huber's constant, for 95 % efficiency at normal errors, and the scale of a median deviation.
HUBER = 1.345
MEDIAN_TO_SD = 1.4826


@dataclass(frozen=True)
class Candidate:
    """A structure of the model: divisor, block (negative: a staircase), and complexity's index."""

    divisor: int
    block: int
    complexity: int

    @property
    def structure(self) -> Structure:
        """The three, the complexity by its name."""
        return Structure.of(self.divisor, self.block, self.complexity)

    @property
    def is_bilinear(self) -> bool:
        """Whether it is ECC's form, without layers and regimes."""
        return self.complexity < 0


class Design:
    """The regression's columns for some rows of widths, made once per divisor and block.

    Args:
        table: The network's terms.
        X: Widths, shape (n, k).
    """

    def __init__(self, table: TermTable, X: FloatArray) -> None:
        self.table, self.X = table, X
        self._columns: dict[tuple[int, int], FloatArray] = {}
        self._chosen: dict[Candidate, tuple[FloatArray, np.ndarray]] = {}

    def columns(self, candidate: Candidate) -> tuple[FloatArray, np.ndarray]:
        """Return the columns of a candidate, shape (n, q), and which terms they are, shape (q,).

        A column that is zero or a multiple of an earlier one says nothing and is left out: so a
        regime without a row takes the rates of all layers.
        """
        if candidate not in self._chosen:
            self._chosen[candidate] = self._choose(candidate)
        return self._chosen[candidate]

    def _choose(self, candidate: Candidate) -> tuple[FloatArray, np.ndarray]:
        key = (1, 1) if candidate.is_bilinear else (candidate.divisor, candidate.block)
        if key not in self._columns:
            functions = functions_of(self.table, self.X, *key)
            self._columns[key] = columns_of(self.table.terms, functions)
        wanted = [
            number
            for number, term in enumerate(self.table.terms)
            if _takes_part(term.complexity, candidate)
            and (term.regime == "all" or candidate.divisor > 1)
        ]
        columns = self._columns[key][:, wanted]
        kept = independent(columns)
        return columns[:, kept], np.array(wanted)[kept]


def fit_candidate(
    design: Design,
    y: FloatArray,
    weights: FloatArray,
    candidate: Candidate,
    quantile: float | None,
    rows: np.ndarray | slice = slice(None),
    iterations: int = ITERATIONS,
) -> FloatArray:
    """Return the rates of all terms, shape (p,), >= 0, fitted on some rows.

    Args:
        design: The columns.
        y: Cost of all rows, shape (n,).
        weights: Of squared relative errors, shape (n,), positive.
        candidate: Which columns take part.
        quantile: The quantile of relative errors to fit; None for the middle.
        rows: Which rows.
        iterations: Of reweighting.
    """
    columns, numbers = design.columns(candidate)
    columns, y, weights = columns[rows], y[rows], weights[rows]
    if candidate.is_bilinear:
        if candidate.complexity == BILINEAR_RELATIVE:
            weights = weights / scale_of(y, weights) ** 2
        # The first term is the constant.
        intercept, others = fit_nonnegative(columns[:, 1:], y, weights)
        found = np.concatenate([[intercept], others])
    else:
        found = fit_robust(columns, y, weights, quantile, iterations)
    rates = np.zeros(len(design.table.terms))
    rates[numbers] = found
    return rates


def scale_of(y: FloatArray, weights: FloatArray) -> FloatArray:
    """Return what errors of costs y (n,) are relative to, shape (n,): their size, never 0."""
    mean = float(np.average(np.abs(y), weights=weights))
    return np.maximum(np.abs(y), SMALLEST_SCALE * mean if mean > 0 else 1.0)


@dataclass(frozen=True)
class Selection:
    """The structure that was chosen, and what spoke for it.

    Attributes:
        best: The structure.
        compared: All that were compared, with their held-out errors.
        fold_rates: Rates of all terms without each fold in turn, shape (folds, p).
    """

    best: Candidate
    compared: tuple[Compared, ...]
    fold_rates: FloatArray


def select(
    design: Design,
    y: FloatArray,
    weights: FloatArray,
    divisors: Sequence[int],
    blocks: Sequence[int],
    complexities: Sequence[int],
    quantile: float | None,
) -> Selection:
    """Return the structure that predicts held-out rows best, as far as the difference is clear.

    Divisor and block together, then the complexity, by relative errors over folds, compared in
    pairs. Regimes have to be beyond doubt, and blocks likely better.

    Args:
        design: The columns.
        y: Cost, shape (n,).
        weights: Of squared relative errors, shape (n,), positive.
        divisors: Divisors to compare, ascending; likewise the other two.
        blocks: Blocks; negative ones are staircases (see `functions_of`).
        complexities: Indices of complexities, simplest first; negative is bilinear.
        quantile: As in `fit_candidate`.
    """
    if len(divisors) * len(blocks) * len(complexities) == 1:
        only = Candidate(divisors[0], blocks[0], complexities[0])
        return Selection(only, (), np.empty((0, len(design.table.terms))))
    if len(np.unique(design.X, axis=0)) < 2:
        # Nothing can be held out of one variant: the simplest structure.
        index = complexities[0]
        least = Candidate(1, 1, index) if index < 0 else Candidate(divisors[0], blocks[0], index)
        return Selection(least, (), np.empty((0, len(design.table.terms))))
    held_out = _HeldOutErrors(design, y, weights, quantile)
    layered = [complexity for complexity in complexities if complexity >= 0]
    search = SEARCH_COMPLEXITY if SEARCH_COMPLEXITY in layered or not layered else layered[0]
    divisor, block = 1, 1
    if layered:
        # All pairs, since padding to blocks looks like divisibility where the block is not known.
        pairs = [Candidate(d, b, search) for d in divisors for b in blocks if b > 0 or d == 1]
        found = _clearest(pairs, held_out)
        divisor, block = found.divisor, found.block
    finals = [
        Candidate(1, 1, index) if index < 0 else Candidate(divisor, block, index)
        for index in complexities
    ]
    errors = [held_out.of(candidate, ITERATIONS) for candidate in finals]
    best = finals[min(range(len(finals)), key=lambda place: held_out.paired.mean(errors[place]))]
    return Selection(best, held_out.table(), held_out.rates(best))


class _HeldOutErrors:
    """Errors of structures on held-out rows, and the rates that gave them.

    Args:
        design: The columns.
        y: Cost, shape (n,).
        weights: Of squared relative errors, shape (n,), positive.
        quantile: As in `fit_candidate`.
    """

    def __init__(
        self, design: Design, y: FloatArray, weights: FloatArray, quantile: float | None
    ) -> None:
        self.design, self.y, self.weights, self.quantile = design, y, weights, quantile
        self.folds, _ = assign_folds(design.X, FOLDS)
        self.num_folds = int(self.folds.max()) + 1
        variants = np.unique(design.X, axis=0, return_inverse=True)[1].reshape(-1)
        self.paired = PairedErrors(variants, weights)
        self.scale = scale_of(y, weights)
        self._rates: dict[tuple[Candidate, int], list[FloatArray]] = {}
        self._errors: dict[Candidate, float] = {}

    def of(self, candidate: Candidate, iterations: int) -> FloatArray:
        """Return the relative errors of all rows, shape (n,), by fits without their fold."""
        errors = self._over_folds(candidate, iterations, self.num_folds)
        self._errors[candidate] = self.paired.mean(errors)
        return errors

    def first(self, candidate: Candidate, iterations: int) -> float:
        """Return the mean relative error of a structure in the first folds."""
        errors = self._over_folds(candidate, iterations, TRIED_FOLDS)
        tried = self.folds < TRIED_FOLDS
        return float(np.average(errors[tried], weights=self.weights[tried]))

    def rates(self, candidate: Candidate) -> FloatArray:
        """Return the rates of all terms without each fold, shape (folds, p)."""
        self.of(candidate, ITERATIONS)
        return np.array(self._rates[candidate, ITERATIONS])

    def table(self) -> tuple[Compared, ...]:
        """Return all that were judged on all rows, with their errors."""
        return tuple(Compared(found.structure, error) for found, error in self._errors.items())

    def _over_folds(self, candidate: Candidate, iterations: int, num_folds: int) -> FloatArray:
        columns, numbers = self.design.columns(candidate)
        known = self._rates.setdefault((candidate, iterations), [])
        predicted = np.full_like(self.y, np.nan)
        for fold in range(min(num_folds, self.num_folds)):
            test = self.folds == fold
            if fold == len(known):
                known.append(
                    fit_candidate(
                        self.design,
                        self.y,
                        self.weights,
                        candidate,
                        self.quantile,
                        ~test,
                        iterations,
                    )
                )
            predicted[test] = columns[test] @ known[fold][numbers]
        # Bounded: one absurd label must not decide.
        return np.minimum(np.abs(predicted - self.y) / self.scale, 1.0)


def _clearest(pairs: Sequence[Candidate], held_out: _HeldOutErrors) -> Candidate:
    """Return the divisor and block that predict best, of a kind that no other clearly beats.

    Kinds, the simplest first: no regimes, a staircase, regimes. Only the latter two advise anything.
    """
    tried = [held_out.first(pair, ROUGH) for pair in pairs]
    order = sorted(range(len(pairs)), key=lambda place: tried[place])
    kinds = [WITH_REGIMES if pair.divisor > 1 else STAIRCASE * (pair.block < 0) for pair in pairs]
    # What is simplest, and the best of each kind, are always judged on all rows.
    kept = {0, *order[:NUM_FINALISTS]}
    kept |= {next(place for place in order if kinds[place] == kind) for kind in set(kinds)}
    errors = {place: held_out.of(pairs[place], ROUGH) for place in sorted(kept)}
    found = believed(held_out.paired, list(errors.values()), [kinds[place] for place in errors])
    return pairs[list(errors)[found]]


def believed(paired: PairedErrors, errors: Sequence[FloatArray], kinds: Sequence[int]) -> int:
    """Return which structure to believe: the best of the simplest kind that none clearly beats.

    Args:
        paired: Compares errors.
        errors: Of each structure, simplest first, shape (n,) each.
        kinds: The kind of each: 0 (which advises nothing), STAIRCASE or WITH_REGIMES.
    """
    best = []
    for kind in sorted(set(kinds)):
        places = [place for place, found in enumerate(kinds) if found == kind]
        likely = paired.first_not_worse([errors[place] for place in places], LEAST_GAIN, LIKELY)
        best.append(places[likely])
    winner = min(best, key=lambda place: paired.mean(errors[place]))
    level = SURER if kinds[winner] == STAIRCASE else SURE
    return best[paired.first_not_worse([errors[place] for place in best], LEAST_GAIN, level)]


def fit_robust(
    columns: FloatArray,
    y: FloatArray,
    weights: FloatArray,
    quantile: float | None,
    iterations: int,
) -> FloatArray:
    """Return rates (q,) >= 0 that minimise Huber's (or the quantile) loss of relative errors.

    By iteratively reweighted non-negative least squares. Errors are relative to the mean of cost
    and prediction, which bounds what an absurd label can do, from the first iteration on.

    Args:
        columns: Shape (n, q).
        y: Cost, shape (n,).
        weights: Shape (n,), positive.
        quantile: As in `fit_candidate`.
        iterations: Of reweighting.

    Raises:
        InputError: The fit does not converge.
    """
    smallest = float(scale_of(y, weights).min())
    predicted = np.full(len(y), _weighted_median(np.abs(y), weights))
    robust = np.ones(len(y))
    # A column may be zero in these rows alone.
    scales = np.linalg.norm(columns, axis=0)
    scales[scales == 0] = 1.0
    normal = columns / scales
    y_scale = float(np.abs(y).max()) or 1.0
    rates = np.zeros(columns.shape[1])
    for _ in range(iterations):
        spread = np.maximum((np.abs(y) + np.abs(predicted)) / 2, smallest)
        root = np.sqrt(weights / weights.mean() * robust) / spread * y_scale
        try:
            rates, _ = nnls(*_reduced(normal * root[:, None], y / y_scale * root))
        except RuntimeError as error:
            raise InputError(f"the non-negative fit did not converge: {error}") from error
        rates = rates * y_scale
        predicted = normal @ rates
        errors = (y - predicted) / np.maximum((np.abs(y) + np.abs(predicted)) / 2, smallest)
        size = np.abs(errors)
        typical = max(HUBER * MEDIAN_TO_SD * _weighted_median(size, weights), 1e-9)
        robust = np.minimum(1.0, typical / np.maximum(size, 1e-300))
        if quantile is not None:
            robust *= np.where(errors > 0, quantile, 1 - quantile)
    return np.asarray(rates / scales)


def _reduced(matrix: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return a problem with the same least squares; of many rows the triangle that they leave."""
    if len(matrix) < MANY_ROWS:
        return matrix, y
    triangle = np.asarray(np.linalg.qr(np.column_stack([matrix, y]), mode="r"))
    return triangle[:, :-1], triangle[:, -1]


def _weighted_median(values: FloatArray, weights: FloatArray) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][int(np.searchsorted(reached, reached[-1] / 2 * (1 - 1e-9)))])


def _takes_part(complexity: int | None, candidate: Candidate) -> bool:
    if complexity is None:
        return True
    if candidate.is_bilinear:
        return complexity < 0
    return 0 <= complexity <= candidate.complexity


def independent(columns: FloatArray) -> list[int]:
    """Return which columns are neither zero nor a multiple of an earlier one."""
    norms = np.linalg.norm(columns, axis=0)
    normal = columns / np.where(norms > 0, norms, 1.0)
    cosines = normal.T @ normal
    kept: list[int] = []
    for number in range(columns.shape[1]):
        if norms[number] > 0 and (not kept or cosines[number, kept].max() < 1 - 1e-12):
            kept.append(number)
    return kept
