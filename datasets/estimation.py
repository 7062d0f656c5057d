"""From a campaign's visits to one latency per variant, corrected for drift, with its interval.

Model, for visit i of variant v in state k, everything in logarithms::

    visit_i = variant_v + b_state * state_shift_i + b_drift * drift_i + e_v * state_shift_i + noise_i

`visit_i` is the median over blocks, less what the visit's calls were still slower than settled (see
`warm_up_excess`). `state_shift` and `drift` come from the reference (see `drift`). What is stated is
`variant_v` at the fastest speed that the machine held for a twentieth of the time; where it drifts,
that speed is read off all visits (see `baseline`), and its error is common to all variants. `b_state` and `b_drift` say how far
variants follow the reference; they are estimated from the differences between visits of the same
variant, so a reference that drifts by itself corrects nothing. `e_v` (standard deviation
`elasticity_sd`) is how much variants differ in following a state. The noise has one variance per
state, moderated per variant as in limma (Smyth 2004): a few visits say little about their own
spread, all visits together say a lot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from .baseline import fastest_speed
from .drift import SpeedHistory, speed_history
from .energy import EnergyStatistics
from .judgement_settings import DEFAULT_JUDGEMENT, JudgementSettings
from .records import Timing, Visit
from .warm_up_excess import WarmUpCurve, warm_up_curve

FloatArray = npt.NDArray[np.float64]
VisitKey = tuple[str, int, int]

# Variance of the median of n normal values times n, relative to that of their mean.
_MEDIAN_COST = {1: 1.0, 2: 1.0, 3: 1.347, 4: 1.192, 5: 1.434, 6: 1.288, 7: 1.473, 8: 1.344}
# How finely it is drawn for a campaign's own visits, several blocks each.
_COST_DRAWS = 400
_COST_SEED = 20_261_129


@dataclass(frozen=True)
class LatencyEstimate:
    """One variant's latency after correction.

    Attributes:
        latency_s: Weighted median over accepted blocks of the corrected block medians.
        low_s: Lower end of the 95 % interval.
        high_s: Upper end of the 95 % interval.
        standard_error: Of the logarithm, so a relative error.
        num_visits: Accepted visits.
    """

    latency_s: float
    low_s: float
    high_s: float
    standard_error: float
    num_visits: int

    @property
    def relative_error(self) -> float:
        """Half the 95 % interval over the latency."""
        return (self.high_s - self.low_s) / 2 / self.latency_s


class CampaignEstimate:
    """What all visits of a campaign say together.

    Args:
        visits: In the order in which they were made; failed ones are left out.
        rejections: Visits that the campaign rejected while it ran, with the reason.
        judgement: What they are judged by, such as the journal's.

    Attributes:
        judgement: What the visits are judged by.
        history: The machine's speed at each timed visit.
        rejections: Every rejected visit with its reason, in plain words.
        state_elasticity: How far variants follow a state of the reference; 1 is fully.
        drift_elasticity: How far variants follow a drift of the reference.
        elasticity_sd: How much variants differ in following a state.
        noise_sd: Relative standard deviation of one visit, per state.
        warm_up: How visits warm up, as far as their timed blocks had not settled.
        common_sd: Relative standard deviation of the error that all latencies share.
    """

    def __init__(
        self,
        visits: Sequence[Visit],
        rejections: Mapping[VisitKey, str] | None = None,
        judgement: JudgementSettings = DEFAULT_JUDGEMENT,
    ) -> None:
        self.judgement = judgement
        timed = [(visit, visit.timing) for visit in visits if visit.timing is not None]
        self.visits = [visit for visit, _ in timed]
        self._timings = [timing for _, timing in timed]
        self.rejections: dict[VisitKey, str] = dict(rejections or {})
        self.state_elasticity, self.drift_elasticity = 1.0, 1.0
        self.elasticity_sd = judgement.elasticity_sd
        self.warm_up, self.common_sd = WarmUpCurve(), 0.0
        self._median_costs: dict[int, float] = {}
        if not timed:
            return
        self.history: SpeedHistory = speed_history(self._timings, judgement)
        self._columns = np.column_stack([self.history.state_shift, self.history.drift])
        names = [visit.variant_id for visit in self.visits]
        _, self._variant = np.unique(names, return_inverse=True)
        self.warm_up = warm_up_curve(self._timings, judgement)
        self._blocks = [self._block_levels(timing) for timing in self._timings]
        self._log_latency = np.array([float(np.median(blocks)) for blocks in self._blocks])
        self.noise_sd = np.full(len(self.history.level), judgement.first_noise_sd)
        self._reject_disturbed()
        self._fit()
        if self._reject_outliers():
            self._fit()
        self._moderate()
        self._read_baseline()
        self._index = {visit.key: i for i, visit in enumerate(self.visits)}

    # -- results ---------------------------------------------------------------------------------

    def latency(self, visits: Sequence[Visit]) -> LatencyEstimate | None:
        """Return the latency that some visits of one variant say; None if none was accepted.

        Args:
            visits: Visits of one variant, among those of the campaign.
        """
        chosen = [i for i in self._indices(visits) if self._accepted[i]]
        if not chosen:
            return None
        rows = np.array(chosen)
        weights = 1.0 / self._variance(rows)
        blocks = [self._blocks[row] - self._correction[row] for row in rows]
        center = _weighted_median(blocks, weights)
        spread = self._corrected[rows] - np.average(self._corrected[rows], weights=weights)
        freedom = len(rows) - 1
        scale = (self._prior_freedom + float(np.sum(weights * spread**2))) / (
            self._prior_freedom + freedom
        )
        noise = scale * self._noise_variance(rows)
        share = weights / weights.sum()
        cost = self._median_cost(len(rows))
        shift = float(np.sum(share * self._correction[rows]))
        lever = share @ self._columns[rows] - self._baseline
        variance = cost * float(np.sum(share**2 * noise))
        variance += (shift * self.elasticity_sd) ** 2 + lever @ self._covariance @ lever
        variance += self.common_sd**2
        error = math.sqrt(variance)
        half = float(stats.t.ppf(0.975, self._prior_freedom + freedom)) * error
        return LatencyEstimate(
            latency_s=math.exp(center),
            low_s=math.exp(center - half),
            high_s=math.exp(center + half),
            standard_error=error,
            num_visits=len(rows),
        )

    def corrected_visit_s(self, visit: Visit) -> float | None:
        """Return one visit's latency after correction in seconds, None if it failed."""
        rows = self._indices([visit])
        return float(np.exp(self._corrected[rows[0]])) if rows else None

    @cached_property
    def energies(self) -> EnergyStatistics:
        """What the accepted visits say about energy readings."""
        return EnergyStatistics(
            [visit for visit in self.visits if visit.key not in self.rejections], self.judgement
        )

    @property
    def correction(self) -> FloatArray:
        """Logarithm of what each timed visit was slower than the baseline, `n`.

        The baseline is the fastest speed that the machine held for `baseline_share` of the time.
        """
        return np.asarray(self._correction)

    # -- rejection -------------------------------------------------------------------------------

    def _reject_disturbed(self) -> None:
        history = self.history
        for i, (visit, timing) in enumerate(zip(self.visits, self._timings, strict=True)):
            reason = None
            suspended = timing.machine.get("suspended_s") or 0.0
            stolen = _steal_share(timing)
            if suspended > self.judgement.max_suspended_s:
                reason = f"the device was suspended for {suspended:.2f} s during the visit"
            elif abs(history.change[i]) > history.change_limit:
                percent = 100 * math.expm1(history.change[i])
                reason = f"the reference changed by {percent:+.0f} % within the visit"
            elif history.state[i] < 0:
                reason = "the reference was at a level that no lasting state of the machine has"
            elif stolen is not None and stolen > self.judgement.max_steal_share:
                reason = f"the hypervisor withheld {100 * stolen:.0f} % of the time"
            if reason is not None:
                self.rejections.setdefault(visit.key, reason)
        self._accept()

    def _accept(self) -> None:
        self._accepted = np.array([visit.key not in self.rejections for visit in self.visits])

    def _reject_outliers(self) -> bool:
        """Reject visits far from their variant's other visits; return whether there were any."""
        found = False
        for rows in self._groups():
            if len(rows) < 3:
                continue
            for i in rows:
                others = rows[rows != i]
                difference = float(self._corrected[i] - np.median(self._corrected[others]))
                sd = math.sqrt(1.5 * float(self._variance(i)))
                limit = max(self.judgement.outlier_change, self.judgement.outlier_sd * sd)
                if abs(difference) > limit:
                    percent = 100 * math.expm1(difference)
                    self.rejections[self.visits[i].key] = (
                        f"it differs by {percent:+.0f} % from the variant's other visits"
                    )
                    found = True
                    break  # one at a time: an outlier moves the others' median
        if found:
            self._accept()
        return found

    # -- fit -------------------------------------------------------------------------------------

    def _fit(self) -> None:
        """Estimate elasticities and noise in turn, each given the other."""
        for _ in range(self.judgement.fit_rounds):
            self._correct()
            self._fit_elasticities()
            self._correct()
            self._fit_noise()
            self._fit_elasticity_sd()

    def _correct(self) -> None:
        slowdown = self._columns @ np.array([self.state_elasticity, self.drift_elasticity])
        known = np.flatnonzero(self._accepted) if self._accepted.any() else np.arange(len(slowdown))
        ranked = known[np.argsort(slowdown[known], kind="stable")]
        fastest = ranked[int(self.judgement.baseline_share * len(ranked))]
        self._baseline = self._columns[fastest]
        self._correction = slowdown - slowdown[fastest]
        self._corrected = self._log_latency - self._correction

    def _read_baseline(self) -> None:
        """Read the fastest speed off the visits themselves, where there is a drift."""
        known = np.flatnonzero(self._accepted)
        if not np.any(self.history.drift) or len(known) < 2:
            return
        seen = np.zeros(len(self._correction))
        variance = np.full_like(seen, math.inf)
        for rows in self._groups():
            variance[rows] = self._variance(rows)
            level = float(np.average(self._corrected[rows], weights=1.0 / variance[rows]))
            rest = self._corrected[rows] - level
            # A wild visit pulls no further than this.
            limit = self.judgement.tamed_sd * np.sqrt(variance[rows])
            seen[rows] = self._correction[rows] + np.clip(rest, -limit, limit)
        durations_s = np.array([timing.load_s + timing.measuring_s for timing in self._timings])
        stairs = self.state_elasticity * self.history.state_shift
        judgement = self.judgement
        baseline = fastest_speed(
            seen,
            stairs,
            variance,
            durations_s,
            judgement.baseline_share,
            judgement.steady_share_error if self._is_steady else judgement.baseline_share_error,
        )
        self._correction = self._correction - baseline.level
        self._corrected = self._log_latency - self._correction
        if self._is_steady:
            # Read off the visits, it does not depend on how far variants follow the reference: an
            # error of that moves a variant as far as its visits saw another speed than all visits.
            self._baseline = np.average(self._columns[known], axis=0, weights=1.0 / variance[known])
        self.common_sd = math.sqrt(baseline.variance)

    def _fit_elasticities(self) -> None:
        columns = self._columns
        within_x, within_y = [], []
        for rows in self._groups():
            if len(rows) < 2:
                continue
            root = np.sqrt(1.0 / self._variance(rows))
            share = root**2 / np.sum(root**2)
            within_x.append((columns[rows] - share @ columns[rows]) * root[:, None])
            within_y.append((self._log_latency[rows] - share @ self._log_latency[rows]) * root)
        judgement = self.judgement
        priors = np.array(
            [
                (judgement.state_elasticity, judgement.state_elasticity_sd),
                (judgement.drift_elasticity, judgement.drift_elasticity_sd),
            ]
        )
        precision = np.diag(priors[:, 1] ** -2.0)
        right = precision @ priors[:, 0]
        if within_x:
            x, y = np.concatenate(within_x), np.concatenate(within_y)
            # Huber's weights: a disturbed visit that slipped through must not tilt the fit.
            residual = y - x @ np.array([self.state_elasticity, self.drift_elasticity])
            huber = np.minimum(1.0, 2.0 / np.maximum(np.abs(residual), 1e-12))
            precision = precision + (x * huber[:, None]).T @ x
            right = right + (x * huber[:, None]).T @ y
        covariance = np.linalg.inv(precision)
        solution = covariance @ right
        self.state_elasticity = float(solution[0])
        self.drift_elasticity = float(max(0.0, solution[1]))
        self._covariance = covariance

    def _fit_noise(self) -> None:
        """One noise variance per state from the spread of visits around their variant."""
        squares = np.zeros(len(self.history.level))
        freedom = np.zeros_like(squares)
        for rows in self._groups():
            for state in np.unique(self.history.state[rows]):
                same = rows[self.history.state[rows] == state]
                if len(same) > 1:
                    spread = self._corrected[same] - self._corrected[same].mean()
                    squares[state] += float(np.sum(spread**2))
                    freedom[state] += len(same) - 1
        typical = squares.sum() / freedom.sum() if freedom.any() else self.noise_sd[0] ** 2
        # A state seen rarely leans on the others.
        prior = self.judgement.state_noise_freedom
        shrunk = (squares + prior * typical) / (freedom + prior)
        self.noise_sd = np.sqrt(np.maximum(shrunk, self.judgement.min_noise_sd**2))

    def _fit_elasticity_sd(self) -> None:
        """How much variants differ in following the machine: excess spread of their own slopes."""
        excess, precision = 0.0, 0.0
        for rows in self._groups():
            shift = self._correction[rows] - self._correction[rows].mean()
            size = float(np.sum(shift**2 / self._noise_variance(rows)))
            if size > 0:
                own = self._corrected[rows] - self._corrected[rows].mean()
                slope = float(np.sum(shift * own / self._noise_variance(rows))) / size
                # One variant with a disturbed visit must not speak for all.
                expected = 1.0 + self.elasticity_sd**2 * size
                excess += min(slope**2 * size, 9.0 * expected) - 1.0
                precision += size
        judgement, count = self.judgement, self.judgement.elasticity_variants
        believed = judgement.steady_elasticity_sd if self._is_steady else judgement.elasticity_sd
        prior = count / believed**2
        estimate = max(0.0, excess + count) / (precision + prior)
        self.elasticity_sd = math.sqrt(estimate)

    def _moderate(self) -> None:
        """Estimate how much variants' own variances differ (limma's prior degrees of freedom)."""
        logs, freedoms = [], []
        for rows in self._groups():
            if len(rows) < 2:
                continue
            weights = 1.0 / self._variance(rows)
            spread = self._corrected[rows] - np.average(self._corrected[rows], weights=weights)
            freedom = len(rows) - 1
            ratio = float(np.sum(weights * spread**2)) / freedom
            logs.append(math.log(max(ratio, 1e-8)) - special.digamma(freedom / 2))
            freedoms.append(freedom)
        self._prior_freedom = self.judgement.variant_noise_freedom
        if len(logs) < 5:
            return
        excess = float(np.var(logs, ddof=1) - np.mean(special.polygamma(1, np.array(freedoms) / 2)))
        if excess <= special.polygamma(1, 50.0):
            self._prior_freedom = 100.0
            return
        half = (
            optimize.brentq(lambda h: special.polygamma(1, h) - excess, 1.0, 50.0)
            if (special.polygamma(1, 1.0) > excess)
            else 1.0
        )
        self._prior_freedom = 2.0 * float(half)

    # -- parts -----------------------------------------------------------------------------------

    def _groups(self) -> list[npt.NDArray[np.int64]]:
        """Rows of the accepted visits of each variant that has any."""
        rows = np.flatnonzero(self._accepted)
        if not len(rows):
            return []
        order = rows[np.argsort(self._variant[rows], kind="stable")]
        cuts = np.flatnonzero(np.diff(self._variant[order])) + 1
        return np.split(order, cuts)

    def _indices(self, visits: Sequence[Visit]) -> list[int]:
        if not self.visits:
            return []
        return [self._index[visit.key] for visit in visits if visit.key in self._index]

    def _median_cost(self, count: int) -> float:
        """Return the variance of the median over the blocks of visits, relative to their mean's.

        A median over the blocks of several visits lies between the median of the visits and their
        mean, and outliers move it less: visits are drawn from all of the campaign's.
        """
        if count not in self._median_costs:
            known = _MEDIAN_COST.get(count, math.pi / 2)
            least = self.judgement.min_drawn_visits
            if self._is_steady and count > 2 and len(self._residuals) >= least:
                random = np.random.default_rng(_COST_SEED)
                drawn = random.integers(len(self._residuals), size=(_COST_DRAWS, count))
                equal = np.ones(count)
                medians = [
                    _weighted_median([self._residuals[i] for i in row], equal) for row in drawn
                ]
                alone = float(np.var([np.median(blocks) for blocks in self._residuals]))
                if alone > 0:
                    known = float(np.clip(count * np.var(medians) / alone, 1.0, known))
            self._median_costs[count] = known
        return self._median_costs[count]

    @cached_property
    def _residuals(self) -> list[FloatArray]:
        """Blocks of each accepted visit around their variant, in standard deviations of a visit."""
        found = []
        for rows in self._groups():
            if len(rows) < 3:
                continue
            weights = 1.0 / self._variance(rows)
            center = float(np.average(self._corrected[rows], weights=weights))
            freed = math.sqrt(len(rows) / (len(rows) - 1))
            for row, weight in zip(rows, weights, strict=True):
                rest = self._blocks[row] - self._correction[row] - center
                found.append(rest * freed * math.sqrt(weight))
        return found

    @property
    def _is_steady(self) -> bool:
        """Whether the machine kept to one state, and visits repeat well enough to know that.

        Where they repeat badly, states and bursts hide among the visits: there intervals stay as
        wide as for a machine that changes between states.
        """
        return (
            len(self.history.level) == 1
            and float(self.noise_sd[0]) <= self.judgement.steady_noise_sd
        )

    def _block_levels(self, timing: Timing) -> FloatArray:
        """Return the logarithms of the medians of the blocks that count, as if they had settled."""
        levels = np.log([block.median_s for block in timing.blocks]) - self.warm_up.of_blocks(
            timing
        )
        most = self.judgement.max_block_steal_share
        is_calm = [
            not block.steal_s or block.steal_s <= most * block.wall_s for block in timing.blocks
        ]
        return np.asarray(levels[is_calm] if sum(is_calm) >= 3 else levels)

    def _noise_variance(self, rows: npt.NDArray[np.int64] | int) -> FloatArray:
        return np.asarray(self.noise_sd[np.maximum(self.history.state[rows], 0)] ** 2)

    def _variance(self, rows: npt.NDArray[np.int64] | int) -> FloatArray:
        """Variance of a visit around its variant, elasticity included."""
        shift = self._correction[rows] * self.elasticity_sd
        return np.asarray(self._noise_variance(rows) + shift**2)


def _weighted_median(visits: Sequence[FloatArray], weights: FloatArray) -> float:
    """Return the median over the blocks of visits, each visit with its weight."""
    sizes = [len(blocks) for blocks in visits]
    values = np.concatenate(visits)
    masses = np.repeat(weights / sizes, sizes)
    order = np.argsort(values)
    x, mass = values[order], masses[order]
    middle = (np.cumsum(mass) - mass / 2) / mass.sum()
    return float(np.interp(0.5, middle, x))


def _steal_share(timing: Timing) -> float | None:
    stolen = [block.steal_s for block in timing.blocks if block.steal_s is not None]
    wall = sum(block.wall_s for block in timing.blocks)
    return sum(stolen) / wall if stolen else None
