"""One model for the layers of all networks: it predicts networks that were never measured."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from joulemap import InputError

from ...datasets import LayerProfiles, NetworkSpec
from ...datasets.device_identity import device_of, is_same_device
from ...datasets.metrics import NoiseFloor
from ..aligned.advice import Advice
from ..aligned.cost import AlignedCost
from ..aligned.fit import scale_of
from ..aligned.structure import (
    BILINEAR,
    DIVISORS,
    Compared,
    Structure,
    check_channels,
    compared_findings,
    compared_from_findings,
    findings_of_numbers,
)
from ..aligned.terms import chain_of
from ..base.cost_module import CostModule
from ..base.files.findings import Findings
from ..base.fittable import FittableDataset
from ..base.input_checks import refuse_odd_costs, refuse_odd_widths
from ..base.intervals import FloatArray, HeldOut
from ..base.measured_under import row_digests
from ..base.predictor import Predictor
from ..base.training import Training
from ..linear.predictor import relative_weights
from .layerwise_fit import (
    Source,
    completed,
    fit_rates,
    predict_folds,
    predict_left_out,
    select_structure,
    stand_ins,
)
from .profiled_dataset import joined
from .terms import KEYS, PLACES, LayerTermTable

_TARGET = "latency_s"
LEAST_ROWS = 6


class UnmeasuredLayersWarning(UserWarning):
    """A network has layers of a family that no measured network has."""


class LayerwisePredictor(Predictor):
    """The cost as a sum over layers, with rates that the layers of all networks share.

    cost = r_0 + sum_layers sum_q r_q(family, regime) q(layer), all r >= 0: multiply-accumulates,
    weights, patches, input and output elements, elements copied into and out of blocks, channels
    and layers themselves. A layer is aligned where a divisor d divides its input and its output
    channels, and computes whole blocks of b output channels then; other layers have rates of
    their own. d and b are those that predict best what was left out: whole networks, where
    several were measured.

    It is fitted from variants of one or several networks (`fit_dataset`), from profiles of single
    layers (`fit_profiles`), or from both, which is better than either: profiles say how the cost
    is split, variants what the whole costs. `for_network` then predicts any other network.

    Args:
        spec: The network to predict; None for the first that is fitted to. Without one, X is a
            chain of dense layers, as in `AlignedBilinearPredictor`.
        divisor: d of {1, 2, 4, 8, 16, 32}; None chooses, 1 has no regimes.
        block: b of {1, 2, 4, 8, 16, 32}; None chooses.

    Attributes:
        coef_: Rates of this network's terms, shape (p,).
        rates_: Rates of all families, quantities and regimes (`layer_terms.KEYS`), shape (q,);
            -1 for families that no measured network has.
        left_out_: Measured cost of whole variants beside predictions by fits without their
            network, shape (n, 2); (0, 2) where one network alone was measured.
        num_networks_: Number of networks that were measured.
        structure_: The chosen d and b.
        candidates_: What was compared, as in the aligned model.
        sampled_multiple_: What divides all widths of the data.
    """

    state_names: ClassVar[tuple[str, ...]] = (
        "coef_",
        "rates_",
        "left_out_",
    )

    coef_: FloatArray
    structure_: Structure
    candidates_: tuple[Compared, ...]
    sampled_multiple_: int
    rates_: FloatArray
    left_out_: FloatArray
    num_networks_: int

    def __init__(
        self,
        spec: NetworkSpec | None = None,
        *,
        divisor: int | None = None,
        block: int | None = None,
    ) -> None:
        super().__init__(spec)
        self.divisor = divisor
        self.block = block

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
        """Whether inputs cost as whole blocks too; never here."""
        return self.structure_.is_staircase

    @property
    def divisor_and_block_(self) -> tuple[int, int]:
        """D and b."""
        return self.structure_.pair

    @property
    def complexity_(self) -> str:
        """'compute': the terms are the same for all networks, and none is chosen."""
        return self.structure_.complexity

    def aligned_cost(self) -> AlignedCost:
        """Return the rates as a cost of the network, which says and advises all that follows."""
        return AlignedCost(
            self.terms(),
            self.coef_,
            self.structure_,
            self.width_names_,
            self.spec,
            self.width_ranges_,
            np.empty((0, 0)),
        )

    def layer_costs(self, widths: ArrayLike) -> dict[str, float]:
        """Return the cost of each layer at one width vector, in `unit_`; they add up to the whole.

        The key '' is what belongs to the call and to no layer. Activations and norms that a
        convolution absorbs are not listed.

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
        """Return the multiple of channels that each width should have on this device; 1 for any."""
        return dict(zip(self.width_names_, self.advice_.multiples, strict=True))

    def round_widths(self, widths: ArrayLike) -> np.ndarray:
        """Return the widths rounded up to what the device likes, int64 of the same shape.

        Args:
            widths: Widths in channels, shape (..., k).

        Raises:
            InputError: The last dimension is not k.
        """
        return self.aligned_cost().round_widths(widths)

    def functions(self, X: FloatArray) -> FloatArray:
        """Return the functions of channel counts that the terms are products of, shape (n, m)."""
        return self.aligned_cost().functions(X)

    def steps(self) -> tuple[int, ...]:
        """Return the multiple that each width has by its network, 1 without one."""
        return self.aligned_cost().steps()

    def random_widths(self) -> FloatArray:
        """Return the bounds and random widths within them, shape (2 + 500, k), in channels."""
        return self.aligned_cost().random_widths()

    # -- fitting ---------------------------------------------------------------------------------

    def fit_dataset(
        self,
        ds: FittableDataset | Sequence[FittableDataset],
        target: str = _TARGET,
        profiles: LayerProfiles | Sequence[LayerProfiles] = (),
    ) -> Self:
        """Fit to one target of one or several networks' datasets, and return self.

        Args:
            ds: Measurements of variants, a dataset for each network, of one device under the same
                conditions; the resolution may differ.
            target: Column to predict.
            profiles: What single layers took; of latencies alone.

        Raises:
            InputError: As `fit`; datasets without a network, of several devices or conditions;
                or profiles for another target than a latency.
        """
        several = list(ds) if isinstance(ds, Sequence) else [ds]
        profiled = [profiles] if isinstance(profiles, LayerProfiles) else list(profiles)
        if not several:
            raise InputError("there is no dataset to fit to; fit_profiles needs none")
        if len(several) == 1 and not profiled:
            return super().fit_dataset(several[0], target)
        if profiled and several[0].unit(target) != "s":
            raise InputError(f"profiles hold seconds, and '{target}' is another cost")
        conditions = _shared_conditions([*several, *profiled])
        measured: dict[str, tuple[NetworkSpec, list[Any]]] = {}
        for part in several:
            spec = _network_of(part)
            X, y, weights = part.xyw(target)
            weights = self.weights_of(y, weights)
            measured.setdefault(spec.fingerprint, (spec, []))[1].append((X, y, weights))
        self._fit_networks(measured, profiled, [*several, *profiled])
        first = several[0]
        self.target_, self.unit_ = target, first.unit(target)
        self.noise_floor_ = _worst([part.noise_floor(target) for part in several])
        self.conditions_ = conditions
        return self

    def fit_profiles(self, profiles: LayerProfiles | Sequence[LayerProfiles]) -> Self:
        """Fit to what single layers took, and to the runs without the profiler; return self.

        Args:
            profiles: Of one or several networks, of one device.

        Raises:
            InputError: None, or of several devices.
        """
        several = [profiles] if isinstance(profiles, LayerProfiles) else list(profiles)
        if not several:
            raise InputError("there are no profiles to fit to")
        measured: dict[str, tuple[NetworkSpec, list[Any]]] = {}
        for part in several:
            cost = np.array([variant.latency_s for variant in part.variants])
            rows = (part.widths.astype(np.float64), cost, np.ones(len(cost)))
            measured.setdefault(part.spec.fingerprint, (part.spec, []))[1].append(rows)
        conditions = _shared_conditions(several)
        self._fit_networks(measured, several, several)
        self.target_, self.unit_ = _TARGET, "s"
        self.conditions_ = conditions
        return self

    def _fit_networks(
        self,
        measured: dict[str, tuple[NetworkSpec, list[Any]]],
        profiles: Sequence[LayerProfiles],
        parts: Sequence[Any],
    ) -> None:
        self.check_parameters()
        _refuse_several_devices(parts)
        by_network: dict[str, list[LayerProfiles]] = {}
        for part in profiles:
            by_network.setdefault(part.spec.fingerprint, []).append(part)
            if part.spec.fingerprint not in measured:
                raise InputError(
                    f"there are profiles of {part.spec.name}, but no dataset of the same network"
                )
        sources = []
        for fingerprint, (spec, rows) in measured.items():
            X, cost, weights = (np.concatenate([row[place] for row in rows]) for place in range(3))
            try:
                refuse_odd_costs(cost)
                refuse_odd_widths(X, spec.width_names, is_network=True)
            except InputError as error:
                raise InputError(f"{spec.name}: {error}") from error
            found = by_network.get(fingerprint, [])
            sources.append(Source(spec, X, cost, weights, joined(found)))
        spec = self.spec if self.spec is not None else sources[0].spec
        self.spec = spec
        self.bind(spec.width_names, unit="", target="cost")
        self.bind_device(parts)
        self.training_rows_ = frozenset(
            digest for source in sources for digest in row_digests(source.X, source.cost)
        )
        self._fit_sources(sources)
        self._bind_intervals(sources)

    def _fit_sources(self, sources: Sequence[Source]) -> None:
        best, self.candidates_ = select_structure(
            sources,
            DIVISORS if self.divisor is None else (self.divisor,),
            DIVISORS if self.block is None else (self.block,),
        )
        self.sampled_multiple_ = max(
            (d for d in DIVISORS if all(np.all(np.mod(source.X, d) == 0) for source in sources)),
            default=1,
        )
        self.structure_ = best.structure
        whole = [source.whole(best.divisor, best.block) for source in sources]
        parts = [source.parts(best.divisor, best.block) for source in sources]
        self.rates_ = fit_rates([*whole, *parts])
        self.num_networks_ = len(sources)
        self.left_out_ = np.empty((0, 2))
        if len(sources) > 1:
            predicted = predict_left_out(whole, parts, [source.X for source in sources]).whole
            self.left_out_ = np.column_stack(
                [np.concatenate([rows.cost for rows in whole]), np.concatenate(predicted)]
            )
        self.coef_ = self._rates_of_terms()

    def _bind_intervals(self, sources: Sequence[Source]) -> None:
        """Set what intervals and warnings need, for the network that the predictor is bound to."""
        own = [s for s in sources if s.spec.fingerprint == self._network().fingerprint]
        if not own:
            self._bind_left_out()
            return
        (source,) = own
        self.num_samples_ = len(source.cost)
        self.width_ranges_ = np.stack([source.X.min(axis=0), source.X.max(axis=0)])
        others = [s for s in sources if s is not source]
        further = [
            rows
            for s in others
            for rows in (s.whole(*self.divisor_and_block_), s.parts(*self.divisor_and_block_))
        ]
        rows, parts = source.whole(*self.divisor_and_block_), source.parts(*self.divisor_and_block_)
        predicted = predict_folds(rows, [parts, *further], source.X)
        distinct = len(np.unique(source.X, axis=0))
        weights = source.weights * len(source.weights)
        self.held_out_ = HeldOut(rows.cost, predicted, weights, distinct)

    def _bind_left_out(self) -> None:
        """Take the errors on networks that were left out; networks count, not their variants."""
        if len(self.left_out_) == 0:
            return
        measured, predicted = self.left_out_.T.copy()
        self.num_samples_ = len(measured)
        self.held_out_ = HeldOut(measured, predicted, np.ones(len(measured)), self.num_networks_)

    # -- other networks --------------------------------------------------------------------------

    def for_network(self, spec: NetworkSpec) -> LayerwisePredictor:
        """Return the predictor of another network, with the same rates.

        Its intervals come from networks that were left out, and are as wide as the largest error
        where few networks were measured. None where one network alone was measured.

        Warns with UnmeasuredLayersWarning where the network has layers of a family that no
        measured network has: they take the rates of a related family.

        Args:
            spec: The network.

        Raises:
            InputError: A family has no measured relative.
        """
        self.ready()
        other = copy.copy(self)
        other.spec = spec
        other.bind(spec.width_names, unit=self.unit_, target=self.target_)
        other.conditions_ = {k: v for k, v in self.conditions_.items() if k != "resolution"}
        other.device_id_, other.former_ids_ = self.device_id_, self.former_ids_
        other.training_rows_ = self.training_rows_
        other.coef_ = other._rates_of_terms()  # noqa: SLF001
        other._bind_left_out()  # noqa: SLF001
        return other

    def to_torch(
        self,
        batch: int | NetworkSpec = 1,
        precision: str = "fp32",
        smooth: bool = False,
        *,
        spec: NetworkSpec | None = None,
    ) -> CostModule:
        """Return the cost as a differentiable torch module: widths (..., k) -> cost (...).

        Args:
            batch: Samples per call that the cost is for; or, as the first argument, a network.
            precision: Number format that the cost is for.
            smooth: Whether to return the surrogate for optimisers.
            spec: The network; None for the one that the predictor is bound to.

        Raises:
            InputError: As `Predictor.to_torch` and `for_network`.
        """
        if isinstance(batch, NetworkSpec):
            spec, batch = batch, int(self.conditions_.get("batch", 1))
        bound = self if spec is None else self.for_network(spec)
        return super(LayerwisePredictor, bound).to_torch(batch, precision, smooth)

    def describe(self) -> list[str]:
        """Return what was found, in plain words."""
        count = self.num_networks_
        networks = "1 network" if count == 1 else f"{count} networks"
        pair = f"alignment {self.alignment_}, blocks of {self.block_} channels"
        sentences = [f"Rates of {self._seen()} from {networks}; {pair}."]
        if len(self.left_out_):
            measured, predicted = self.left_out_.T
            error = float(np.mean(np.abs(predicted / measured - 1)))
            sentences.append(
                f"Networks that were left out are predicted to {error:.1%} on average."
            )
        return sentences

    def _seen(self) -> str:
        families = {KEYS[place][0] for place in np.flatnonzero(self.rates_ >= 0)} - {"network"}
        return ", ".join(sorted(families))

    def _rates_of_terms(self) -> FloatArray:
        """Return the rates of this network's terms, shape (p,), those of relatives where needed."""
        replaced = {}
        related = stand_ins(self.rates_)
        for term in self.terms().terms:
            if self.rates_[PLACES[term.family, "layer", "all"]] >= 0 or not term.layers[0]:
                continue
            if term.family not in related:
                raise InputError(
                    f"layer '{term.layers[0]}' is a {term.family}, and no measured network has "
                    f"one or anything like it; measured: {self._seen()}"
                )
            replaced[term.family] = related[term.family]
        if replaced:
            listed = "; ".join(f"{family} as {other}" for family, other in replaced.items())
            warnings.warn(
                f"no measured network has these layers, which cost as related ones: {listed}",
                UnmeasuredLayersWarning,
                stacklevel=4,
            )
        rates = completed(self.rates_)
        places = [PLACES[term.family, term.quantity, term.regime] for term in self.terms().terms]
        return rates[places]

    # -- what Predictor asks for -----------------------------------------------------------------

    def weights_of(self, y: FloatArray, weights: FloatArray) -> FloatArray:
        """Return weights of squared relative errors from those of squared absolute ones."""
        return relative_weights(scale_of(y, weights), weights)

    def fit_arrays(self, training: Training) -> None:
        """Choose divisor and block, and set the rates, from variants of one network."""
        self._fit_sources([Source(self._network(), training.X, training.y, training.weights)])

    def predict_arrays(self, X: FloatArray) -> FloatArray:
        """Return the cost, shape (n,), of checked widths (n, k)."""
        return self.aligned_cost().predict(X)

    def exact_module(self) -> CostModule:
        """Return the cost in both regimes, interpolated between integer channel counts."""
        return self.aligned_cost().exact_module(self.cost_info())

    def smooth_module(self) -> CostModule:
        """Return the polynomial that an optimiser pays on average, who rounds as is advised.

        Its `max_deviation` is the largest over the bounds and random integer widths.
        """
        return self.aligned_cost().smooth_module(self.cost_info())

    def check_parameters(self) -> None:
        """Check the hyperparameters.

        Raises:
            InputError: One of them is not usable.
        """
        check_channels("divisor", self.divisor)
        check_channels("block", self.block)

    def num_needed(self, num_widths: int) -> int:
        """Return the least number of different rows; two without a spec."""
        return 2 if self.spec is None else LEAST_ROWS

    def findings(self) -> dict[str, Any]:
        """Return d and b, what they were compared with, and the number of networks."""
        return {
            "structure": self.structure_.to_findings(),
            "candidates": compared_findings(self.candidates_),
            "sampled_multiple": self.sampled_multiple_,
            "num_networks": self.num_networks_,
        }

    def take_findings(self, found: Findings) -> None:
        """Set d and b, what they were compared with, and the number of networks."""
        structure = found.part("structure")
        self.structure_ = Structure.from_findings(structure)
        structure.end()
        self.candidates_ = compared_from_findings(found.parts("candidates"))
        self.sampled_multiple_ = found.choice("sampled_multiple", DIVISORS)
        self.num_networks_ = found.count("num_networks", 1)

    def former_findings(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Return the findings of a file before version 2: three arrays held them."""
        count = float(arrays.pop("num_networks_"))
        if not count.is_integer():
            raise InputError(f"num_networks_ is {count}, not a count")
        found = findings_of_numbers(arrays.pop("structure_"), arrays.pop("candidates_"))
        return {**found, "num_networks": int(count)}

    def check_state(self) -> None:
        """Check the fitted arrays against the network.

        Raises:
            InputError: Wrong shapes or values.
        """
        num_terms = len(self.terms().terms)
        if self.coef_.shape != (num_terms,) or np.any(self.coef_ < 0):
            raise InputError(f"coef_ is not {num_terms} rates >= 0, one for each term")
        if self.structure_.is_staircase or self.complexity_ == BILINEAR:
            raise InputError("its structure is not one of single layers")
        if self.rates_.shape != (len(KEYS),) or np.any((self.rates_ < 0) & (self.rates_ != -1)):
            raise InputError(f"rates_ is not {len(KEYS)} rates >= 0, or -1 for unknown ones")
        if self.left_out_.ndim != 2 or self.left_out_.shape[1] != 2:
            raise InputError("left_out_ is not a table of two columns")

    def terms(self) -> LayerTermTable:
        """Return the terms that `coef_` are the rates of, in order."""
        return _terms_of(self._network())

    def _network(self) -> NetworkSpec:
        return chain_of(len(self.width_names_)) if self.spec is None else self.spec


def _network_of(ds: FittableDataset) -> NetworkSpec:
    if ds.spec is None:
        raise InputError("a table of features has no layers; write datasets with a network")
    if varying := [name for name in ds.feature_names if name not in ds.width_names]:
        raise InputError(
            f"the condition {varying[0]} varies in the dataset of {ds.spec.name}; choose one with "
            f"where({varying[0]}=...)"
        )
    return ds.spec


def _refuse_several_devices(parts: Sequence[Any]) -> None:
    known = [part for part in parts if part.device_id is not None]
    if any(not is_same_device(device_of(known[0]), device_of(part)) for part in known[1:]):
        names = sorted({part.device_id for part in known})
        raise InputError(f"the measurements are of several devices: {', '.join(names)}")


def _shared_conditions(several: Sequence[FittableDataset | LayerProfiles]) -> dict[str, Any]:
    """Return the conditions of all datasets and profiles, and refuse those that differ."""
    shared: dict[str, Any] = {}
    for part in several:
        conditions = part.conditions if isinstance(part, LayerProfiles) else part.fixed_conditions
        for name, value in conditions.items():
            if pd.isna(value) or name == "resolution":
                continue
            if shared.setdefault(name, value) != value:
                raise InputError(
                    f"the datasets differ in {name}: {shared[name]} and {value}; a layer's rates "
                    "hold for one"
                )
    return shared


def _worst(floors: Sequence[NoiseFloor | None]) -> NoiseFloor | None:
    known = [floor for floor in floors if floor is not None]
    return max(known, key=lambda floor: floor.low) if len(known) == len(floors) else None


@lru_cache(maxsize=32)
def _terms_of(spec: NetworkSpec) -> LayerTermTable:
    return LayerTermTable(spec)
