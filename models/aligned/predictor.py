"""The aligned bilinear predictor: a few rates per kind of layer, and regimes by divisibility."""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike

from joulemap import InputError

from ...datasets import NetworkSpec
from ..base.cost_module import CostModule
from ..base.files.findings import Findings
from ..base.intervals import FloatArray
from ..base.predictor import Predictor
from ..base.training import Training
from ..linear.predictor import relative_weights
from .advice import Advice
from .cost import AlignedCost
from .fit import BILINEAR_ABSOLUTE, BILINEAR_RELATIVE, Design, fit_candidate, scale_of, select
from .structure import (
    BILINEAR,
    DIVISORS,
    Compared,
    Structure,
    check_channels,
    compared_findings,
    compared_from_findings,
    findings_of_numbers,
)
from .terms import COMPLEXITIES, TermTable, chain_of
from .words import describe

# Negative: a staircase, whose channels cost as the next multiple, inputs and outputs alike.
BLOCKS = (*DIVISORS, *(-step for step in DIVISORS if step > 1))
LEAST_ROWS = 6


class AlignedBilinearPredictor(Predictor):
    """The cost as a sum of products of channel counts, in two regimes of divisibility.

    cost = sum_t r_t sum_{layers l of t's family} c_tl f_t(in_l) g_t(out_l), all r_t >= 0, where
    f and g are 1 or the channel count, within the regime that the layer's input channels are
    multiples of a divisor d ('aligned') or not ('misaligned'); aligned layers compute whole
    blocks of b output channels. The families (pointwise, depthwise, linear, ..) share their rates
    r_t over the layers. d, b and how many terms there are come from cross-validation, in which
    ECC's bilinear model takes part: where it predicts better it is what is fitted.

    Args:
        spec: The network; None for a chain of dense layers whose hidden widths are the columns
            of X, between one input and one output.
        divisor: d of {1, 2, 4, 8, 16, 32}; None chooses by cross-validation, 1 has no regimes.
        block: b of {1, 2, 4, 8, 16, 32}; None chooses by cross-validation.
        complexity: 'compute' (multiply-accumulates by family and regime), 'memory' (also weights,
            inputs, outputs, changes of regime), 'overheads' (also per channel and per layer),
            'bilinear' (ECC's form), or None, which chooses by cross-validation.
        quantile: None fits the middle, robustly; a number such as 0.25 fits that quantile of
            the relative errors, for raw labels that are too long more often than too short.

    Attributes:
        coef_: Rates of all terms, shape (p,): the cost of one MAC, element, channel or layer.
        structure_: The chosen d, b and terms.
        candidates_: What was compared, each with its mean relative error on held-out rows.
        sampled_multiple_: The largest of {1, 2, 4, 8, 16, 32} that divides all widths of the data.
    """

    state_names: ClassVar[tuple[str, ...]] = ("coef_", "fold_rates_")
    optional_state_names: ClassVar[tuple[str, ...]] = ("fold_rates_",)

    coef_: FloatArray
    structure_: Structure
    candidates_: tuple[Compared, ...]
    sampled_multiple_: int
    # Rates of all terms without each fold, shape (5, p); (0, 0) where not known.
    fold_rates_: FloatArray = np.empty((0, 0))

    def __init__(
        self,
        spec: NetworkSpec | None = None,
        *,
        divisor: int | None = None,
        block: int | None = None,
        complexity: Literal["bilinear", "compute", "memory", "overheads"] | None = None,
        quantile: float | None = None,
    ) -> None:
        super().__init__(spec)
        self.divisor = divisor
        self.block = block
        self.complexity = complexity
        self.quantile = quantile

    # -- what was found --------------------------------------------------------------------------

    @property
    def alignment_(self) -> int:
        """The divisor d that separates the regimes, in channels; 1 where there are none."""
        return self.structure_.divisor

    @property
    def block_(self) -> int:
        """The block b of output channels that aligned layers are padded to; 1 for no padding."""
        return self.structure_.block

    @property
    def is_staircase_(self) -> bool:
        """Whether inputs cost as whole blocks too: any width then costs as the next multiple of b."""
        return self.structure_.is_staircase

    @property
    def divisor_and_block_(self) -> tuple[int, int]:
        """d, and b as `functions_of` takes it: negative for a staircase."""
        return self.structure_.pair

    @property
    def complexity_(self) -> str:
        """Which terms take part, as the hyperparameter of that name."""
        return self.structure_.complexity

    def describe(self) -> list[str]:
        """Return what was found, in plain words: alignment, its cost, what to round widths to."""
        return describe(self)

    def layer_costs(self, widths: ArrayLike) -> dict[str, float]:
        """Return the cost of each layer at one width vector, in `unit_`; they add up to the whole.

        The key '' is what belongs to the call and to no layer. Activations and norms that a
        convolution absorbs are not listed. Empty where the bilinear form was chosen, which does
        not know layers.

        Args:
            widths: Widths in channels, shape (k,).

        Raises:
            InputError: Not one width vector.
        """
        X = np.atleast_2d(np.asarray(widths, dtype=np.float64))
        self._refuse_wrong_count(X)
        return self.aligned_cost().layer_costs(X)

    @property
    def advice_(self) -> Advice:
        """What to round widths to, and whether that saves or only costs nothing."""
        return self.aligned_cost().advice()

    def advised_multiples(self) -> dict[str, int]:
        """Return the multiple of channels that each width should have on this device; 1 for any.

        Those at which random width vectors, rounded up, cost less by this model and by its fits
        without each fold, beyond what these differ by; or, where whole blocks are paid for, those
        at which they cost no more. Otherwise the width's own `multiple`.
        """
        return dict(zip(self.width_names_, self.advice_.multiples, strict=True))

    def round_widths(self, widths: ArrayLike) -> np.ndarray:
        """Return the widths rounded up to what the device likes, int64 of the same shape.

        Up to the next advised multiple; down to the last one where that exceeds the width's
        bound; unchanged where no multiple lies within the bounds.

        Args:
            widths: Widths in channels, shape (..., k).

        Raises:
            InputError: The last dimension is not k.
        """
        return self.aligned_cost().round_widths(widths)

    # -- what Predictor asks for -----------------------------------------------------------------

    def weights_of(self, y: FloatArray, weights: FloatArray) -> FloatArray:
        """Return weights of squared relative errors from those of squared absolute ones."""
        return relative_weights(scale_of(y, weights), weights)

    def fit_arrays(self, training: Training) -> None:
        """Choose divisor, block and complexity, and set the rates, from checked arrays."""
        X, y, weights = training.X, training.y, training.weights
        table = self.terms()
        design = Design(table, X)
        indices = {BILINEAR: (BILINEAR_RELATIVE, BILINEAR_ABSOLUTE)} | {
            name: (index,) for index, name in enumerate(COMPLEXITIES)
        }
        wanted = (*COMPLEXITIES, BILINEAR) if self.complexity is None else (self.complexity,)
        found = select(
            design,
            y,
            weights,
            DIVISORS if self.divisor is None else (self.divisor,),
            BLOCKS if self.block is None else (self.block,),
            [index for name in wanted for index in indices[name]],
            self.quantile,
        )
        self.candidates_, self.fold_rates_ = found.compared, found.fold_rates
        self.structure_, self.sampled_multiple_ = found.best.structure, _divisor_of(X)
        self.coef_ = fit_candidate(design, y, weights, found.best, self.quantile)

    def predict_arrays(self, X: FloatArray) -> FloatArray:
        """Return the cost, shape (n,), of checked widths (n, k)."""
        return self.aligned_cost().predict(X)

    def exact_module(self) -> CostModule:
        """Return the cost in both regimes, interpolated between integer channel counts."""
        return self.aligned_cost().exact_module(self.cost_info())

    def smooth_module(self) -> CostModule:
        """Return the polynomial that an optimiser pays on average, who rounds as is advised.

        Of the aligned regime where rounding is advised: equal to the exact cost where all channel
        counts are multiples of divisor and block. Elsewhere regimes and blocks count as they do on
        average over all widths. Its `max_deviation` is the largest over the bounds and random
        integer widths, misaligned ones included.
        """
        return self.aligned_cost().smooth_module(self.cost_info())

    def num_needed(self, num_widths: int) -> int:
        """Return the least number of different rows: as ECC's model, but at least six.

        Without a spec two, as for any scikit-learn regressor.
        """
        return 2 if self.spec is None else max(LEAST_ROWS, ceil((num_widths + 2) / 2))

    def check_parameters(self) -> None:
        """Check the hyperparameters.

        Raises:
            InputError: One of them is not usable.
        """
        check_channels("divisor", self.divisor)
        check_channels("block", self.block)
        names = (*COMPLEXITIES, BILINEAR)
        if self.complexity is not None and self.complexity not in names:
            raise InputError(
                f"complexity is {self.complexity!r}; write None or one of {', '.join(names)}"
            )
        quantile = self.quantile
        if quantile is not None and not (
            isinstance(quantile, int | float)
            and not isinstance(quantile, bool)
            and 0 < quantile < 1
        ):
            raise InputError(f"quantile is {quantile!r}; write None or a number between 0 and 1")

    def findings(self) -> dict[str, Any]:
        """Return the structure, what it was compared with, and what divides all widths."""
        return {
            "structure": self.structure_.to_findings(),
            "candidates": compared_findings(self.candidates_),
            "sampled_multiple": self.sampled_multiple_,
        }

    def take_findings(self, found: Findings) -> None:
        """Set the structure, what it was compared with, and what divides all widths."""
        structure = found.part("structure")
        self.structure_ = Structure.from_findings(structure)
        structure.end()
        self.candidates_ = compared_from_findings(found.parts("candidates"))
        self.sampled_multiple_ = found.choice("sampled_multiple", DIVISORS)

    def former_findings(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Return the findings of a file before version 2: two arrays held them."""
        return findings_of_numbers(arrays.pop("structure_"), arrays.pop("candidates_"))

    def check_state(self) -> None:
        """Check the fitted arrays against the network.

        Raises:
            InputError: Wrong shapes or values.
        """
        num_terms = len(self.terms().terms)
        if self.coef_.shape != (num_terms,) or np.any(self.coef_ < 0):
            raise InputError(f"coef_ is not {num_terms} rates >= 0, one for each term")
        if self.fold_rates_.size and self.fold_rates_.shape[1:] != (num_terms,):
            raise InputError(f"fold_rates_ is not a table of {num_terms} columns")

    # -- the network -----------------------------------------------------------------------------

    def aligned_cost(self) -> AlignedCost:
        """Return what was fitted as a cost of the network, which says and advises all that follows."""
        return AlignedCost(
            self.terms(),
            self.coef_,
            self.structure_,
            self.width_names_,
            self.spec,
            self.width_ranges_,
            self.fold_rates_,
        )

    def functions(self, X: FloatArray) -> FloatArray:
        """Return the functions of channel counts that the terms are products of, shape (n, m)."""
        return self.aligned_cost().functions(X)

    def steps(self) -> tuple[int, ...]:
        """Return the multiple that each width has by its network, 1 without one."""
        return self.aligned_cost().steps()

    def terms(self) -> TermTable:
        """Return the terms that `coef_` are the rates of, in order.

        Raises:
            InputError: The network has a layer that the model has no term for.
        """
        # By width names rather than X's columns, which need not be identifiers.
        return _terms_of(chain_of(len(self.width_names_)) if self.spec is None else self.spec)

    def random_widths(self) -> FloatArray:
        """Return the bounds and random widths within them, shape (2 + 500, k), in channels."""
        return self.aligned_cost().random_widths()


def _divisor_of(X: FloatArray) -> int:
    return max((d for d in DIVISORS if np.all(np.mod(X, d) == 0)), default=1)


@lru_cache(maxsize=32)
def _terms_of(spec: NetworkSpec) -> TermTable:
    return TermTable(spec)
