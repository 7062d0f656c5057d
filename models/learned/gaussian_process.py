"""A Gaussian process on what the aligned model, or a sum of columns, leaves unexplained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.optimize import minimize

from joulemap import InputError

from ...datasets import NetworkSpec
from ..base.cost_module import CostInfo, CostModule
from ..base.files.findings import Findings
from ..base.intervals import FloatArray
from ..base.kernel import Columns, GaussianKernel
from ..base.predictor import Predictor
from ..base.repeated_rows import merge_repeated
from ..base.training import Training
from ..linear.predictor import relative_weights
from .trend import Trend, TrendForm, TrendModule

MAX_ITERATIONS = 40
# Iterations after which the better of two starts is chosen, and rows from which there are two.
FIRST_ITERATIONS = 15
LEAST_TWO_STARTS = 50
# Iterations that refine hyperparameters found on other rows of the same data.
MAX_REFINEMENTS = 3
CHUNK = 512
_JITTER = 1e-6


class GaussianProcessPredictor(Predictor):
    """The cost as a known part times the exponential of a Gaussian process.

    The known part is the aligned model where there is a spec; otherwise a sum of the columns with
    coefficients >= 0 (up to four columns also their products) where that predicts held-out rows
    better than a line in the columns' logarithms, else a constant. The process has a covariance of
    several parts (see `gaussian_kernel`) whose hyperparameters maximise the marginal likelihood
    times weak priors. Columns need not be widths: any sizes, and choices as 0 and 1. Where costs
    are not all positive the process is added to a constant.

    Source: Rasmussen, Williams, "Gaussian Processes for Machine Learning", 2006, sections 2.2
    and 5.4.

    Args:
        spec: The network; None takes the columns of X as they are.
        learning_rows: Rows that hyperparameters are learned from, at most; predictions use all.
    """

    state_names: ClassVar[tuple[str, ...]] = (
        "points_",
        "dual_",
        "noise_",
        "theta_",
        "outcome_",
        "mean_coef_",
    )

    points_: FloatArray
    dual_: FloatArray
    noise_: FloatArray
    theta_: FloatArray
    columns_: Columns
    # What is taken off the logarithms (or costs), and what they are then divided by.
    outcome_: FloatArray
    is_log_: bool
    mean_coef_: FloatArray
    mean_form_: TrendForm

    def __init__(self, spec: NetworkSpec | None = None, *, learning_rows: int = 300) -> None:
        super().__init__(spec)
        self.learning_rows = learning_rows

    # -- fitting ---------------------------------------------------------------------------------

    def bind(
        self,
        width_names: Sequence[str],
        *,
        unit: str,
        target: str,
        conditions: Mapping[str, Any] | None = None,
    ) -> None:
        """Set what does not come from costs, and forget hyperparameters; see `Predictor.bind`."""
        self._learned: dict[int, FloatArray] = {}
        super().bind(width_names, unit=unit, target=target, conditions=conditions)

    def weights_of(self, y: FloatArray, weights: FloatArray) -> FloatArray:
        """Return weights of squared relative errors from those of squared absolute ones."""
        return relative_weights(y, weights)

    def fit_arrays(self, training: Training) -> None:
        """Set the known part, the hyperparameters and what predictions need of the rows."""
        X, y, weights = training.X, training.y, training.weights
        is_log = bool(np.all(y > 0))
        trend = Trend.fit(self.spec, self.width_names_, X, y, weights)
        self.mean_form_, self.mean_coef_ = trend.form, trend.coef
        residual = np.log(y) - np.log(trend.at(X)) if is_log else y
        points, z, weight = merge_repeated(X, residual, weights)
        center = float(weight @ z / weight.sum())
        scale = max(float(np.std(z)), 1e-9 * max(1.0, abs(center)))
        self.outcome_, self.is_log_ = np.array([center, scale]), is_log
        columns = Columns.of(points)
        kernel = GaussianKernel(columns)
        scaled = torch.from_numpy((z - center) / scale)
        spread = torch.from_numpy(weight.mean() / weight)
        self.theta_ = self._learn(kernel, torch.from_numpy(points), scaled, spread)
        self.columns_, self.points_ = columns, points
        with torch.no_grad():
            theta = torch.from_numpy(self.theta_)
            at = kernel.coordinates(torch.from_numpy(points))
            matrix = kernel.covariance(at, at, theta)
            noise = kernel.noise(theta) * spread + _JITTER
            matrix.diagonal().add_(noise)
            factor = torch.linalg.cholesky(matrix)
            self.dual_ = torch.cholesky_solve(scaled[:, None], factor)[:, 0].numpy()
            self.noise_ = noise.numpy()

    def _learn(
        self, kernel: GaussianKernel, points: torch.Tensor, z: torch.Tensor, spread: torch.Tensor
    ) -> FloatArray:
        """Return the hyperparameters' logarithms, shape (p,)."""
        mean, sd = kernel.prior_mean, kernel.prior_sd
        order = np.random.default_rng(0).permutation(len(z))[: self.learning_rows]
        at = kernel.coordinates(points[order])
        z, spread = z[order], spread[order]

        def loss(values: FloatArray) -> tuple[float, FloatArray]:
            theta = torch.tensor(values, requires_grad=True)
            matrix = kernel.covariance(at, at, theta)
            matrix = matrix + torch.diag(kernel.noise(theta) * spread + _JITTER)
            factor = torch.linalg.cholesky(matrix)
            solved = torch.cholesky_solve(z[:, None], factor)[:, 0]
            total = 0.5 * z @ solved + factor.diagonal().log().sum()
            total = total + 0.5 * (((theta - mean) / sd) ** 2).sum()
            (gradient,) = torch.autograd.grad(total, theta)
            return float(total.detach()), gradient.numpy()

        def improved(start: FloatArray, iterations: int) -> Any:
            return minimize(
                loss,
                start,
                jac=True,
                method="L-BFGS-B",
                bounds=list(zip((mean - 3 * sd).tolist(), (mean + 4 * sd).tolist(), strict=True)),
                options={"maxiter": iterations},
            )

        # Folds of the same data differ little: later ones begin where the first has ended.
        learned = self._learned
        known = learned.get(len(mean))
        if known is None:
            starts = [mean.numpy(), *([kernel.rough_start] if len(z) >= LEAST_TWO_STARTS else [])]
            known = min(
                (improved(start, FIRST_ITERATIONS) for start in starts), key=lambda r: r.fun
            ).x
            known = improved(known, MAX_ITERATIONS).x
        else:
            known = improved(known, MAX_REFINEMENTS).x
        learned[len(mean)] = known
        return np.asarray(known, dtype=np.float64)

    # -- predicting ------------------------------------------------------------------------------

    def predict_arrays(self, X: FloatArray) -> FloatArray:
        """Return the cost, shape (n,), of checked columns (n, m)."""
        kernel = GaussianKernel(self.columns_, self.theta_)
        center, scale = self.outcome_
        process = np.empty(len(X))
        with torch.no_grad():
            at = kernel.coordinates(torch.from_numpy(self.points_))
            dual = torch.from_numpy(self.dual_)
            for start in range(0, len(X), CHUNK):
                rows = torch.tensor(X[start : start + CHUNK])
                covariance = kernel.covariance(kernel.coordinates(rows), at)
                process[start : start + CHUNK] = (covariance @ dual).numpy()
        result: FloatArray = center + scale * process
        return self._trend().at(X) * np.exp(result) if self.is_log_ else result

    def spread_arrays(self, X: FloatArray) -> FloatArray:
        """Return the posterior standard deviation of one measurement over its cost, shape (n,)."""
        module = self._module(is_smooth=False)
        with torch.no_grad():
            parts = [
                module.spread(torch.tensor(X[start : start + CHUNK])).numpy()
                for start in range(0, len(X), CHUNK)
            ]
        return np.concatenate(parts)

    def exact_module(self) -> CostModule:
        """Return the posterior mean, interpolated where it steps between whole numbers."""
        return self._module(is_smooth=False)

    def smooth_module(self) -> CostModule:
        """Return the posterior mean in the aligned regime, with blocks as on average.

        Its `max_deviation` is the largest over the data's rows.
        """
        module = self._module(is_smooth=True)
        with torch.no_grad():
            smooth = module(torch.from_numpy(self.points_)).numpy()
        exact = self.predict_arrays(self.points_)
        deviation = np.abs(smooth - exact) / np.maximum(np.abs(exact), np.finfo(float).tiny)
        module.info = replace(module.info, max_deviation=float(deviation.max()))
        return module

    def _module(self, *, is_smooth: bool) -> GaussianProcessModule:
        return GaussianProcessModule(
            GaussianKernel(self.columns_, self.theta_),
            {name: getattr(self, f"{name}_") for name in ("points", "dual", "noise", "outcome")},
            self._trend().module(is_smooth=is_smooth),
            self.cost_info(),
            is_log=self.is_log_,
            is_smooth=is_smooth,
        )

    def _trend(self) -> Trend:
        return Trend(self.spec, self.width_names_, self.mean_form_, self.mean_coef_)

    def num_needed(self, num_widths: int) -> int:
        """Return the least number of different rows: two beside the one that is held out."""
        return 3

    def check_parameters(self) -> None:
        """Check the hyperparameters.

        Raises:
            InputError: One of them is not usable.
        """
        rows = self.learning_rows
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 2:
            raise InputError(f"learning_rows is {rows!r}, not a number of at least 2")

    def findings(self) -> dict[str, Any]:
        """Return how columns are read, which known part there is, and whether logarithms are."""
        return {
            "columns": self.columns_.to_findings(),
            "mean": self.mean_form_.to_findings(),
            "is_log": self.is_log_,
        }

    def take_findings(self, found: Findings) -> None:
        """Set how columns are read, which known part there is, and whether logarithms are."""
        self.columns_ = Columns.from_findings(found.parts("columns"))
        self.mean_form_ = TrendForm.from_findings(found.part("mean"))
        self.is_log_ = found.flag("is_log")

    def former_findings(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Return the findings of a file before version 2: three arrays held them."""
        outcome = arrays["outcome_"]
        arrays["outcome_"] = outcome[:-1]
        return {
            "columns": Columns.from_array(arrays.pop("columns_")).to_findings(),
            "mean": TrendForm.from_numbers(arrays.pop("mean_structure_")).to_findings(),
            "is_log": bool(outcome[-1] > 0),
        }

    def check_state(self) -> None:
        """Check the arrays that came from a file.

        Raises:
            InputError: They do not fit together.
        """
        count = self.n_features_in_
        self.columns_.check(count)
        self._trend().check()
        expected = {
            "points_": (np.shape(self.dual_)[0] if np.ndim(self.dual_) == 1 else -1, count),
            "noise_": np.shape(self.dual_),
            "theta_": (len(GaussianKernel(self.columns_).priors),),
            "outcome_": (2,),
        }
        for name, shape in expected.items():
            if np.shape(getattr(self, name)) != shape:
                raise InputError(f"{name} has shape {np.shape(getattr(self, name))}, not {shape}")
        if np.any(self.noise_ <= 0):
            raise InputError("noise_ is a variance and has values that are not positive")


class GaussianProcessModule(CostModule):
    """The posterior mean as a torch module: columns (..., m) -> cost (...).

    Args:
        kernel: The covariance.
        arrays: `points` (n, m), `dual` and `noise` (n,), `outcome` (2,).
        trend: The known part.
        info: What the module predicts.
        is_log: Whether the process is of logarithms.
        is_smooth: Whether steps are replaced by their average.
    """

    points: torch.Tensor
    dual: torch.Tensor
    noise: torch.Tensor
    outcome: torch.Tensor
    scaled_points: torch.Tensor
    point_steps: torch.Tensor

    def __init__(
        self,
        kernel: GaussianKernel,
        arrays: dict[str, FloatArray],
        trend: TrendModule,
        info: CostInfo,
        *,
        is_log: bool,
        is_smooth: bool,
    ) -> None:
        super().__init__(info)
        self.kernel, self.trend, self.is_smooth = kernel, trend, is_smooth
        for name, values in arrays.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64))
        with torch.no_grad():
            scaled, steps = kernel.coordinates(self.points)
        self.register_buffer("scaled_points", scaled)
        self.register_buffer("point_steps", steps)
        self.is_log = is_log

    def cost(self, widths: torch.Tensor) -> torch.Tensor:
        """Return the cost (...) of columns (..., m), both in the buffers' dtype."""
        covariance = self._covariance(self.kernel.coordinates(widths, self.is_smooth))
        process = self.outcome[0] + self.outcome[1] * (covariance @ self.dual)
        if not self.is_log:
            return process
        cost: torch.Tensor = self.trend(widths) * process.exp()
        return cost

    def spread(self, widths: torch.Tensor) -> torch.Tensor:
        """Return the posterior standard deviation of one measurement over its cost, (...).

        The factor of the covariance is made anew: as a buffer it would be in every export.
        """
        among = self._covariance((self.scaled_points, self.point_steps)).double()
        factor = torch.linalg.cholesky(among + torch.diag(self.noise).double())
        at = self.kernel.coordinates(widths, self.is_smooth)
        covariance = self._covariance(at).double()
        rows = covariance.reshape(-1, covariance.shape[-1])
        solved = torch.linalg.solve_triangular(factor, rows.T, upper=False)
        explained = (solved**2).sum(0).reshape(covariance.shape[:-1]).to(widths.dtype)
        variance = (self.kernel.variance(at) - explained).clamp(min=0.0) + self.noise.median()
        deviation: torch.Tensor = self.outcome[1] * variance.sqrt()
        if self.is_log:
            return deviation
        return deviation / self.cost(widths).abs().clamp(min=torch.finfo(deviation.dtype).tiny)

    def _covariance(self, at: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return self.kernel.covariance(at, (self.scaled_points, self.point_steps))
