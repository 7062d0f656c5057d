"""What a network costs: predictors and the torch modules they give.

Names are imported when first used: `joulemap --help` must not wait for torch.
"""

from __future__ import annotations

if __name__ == "models":  # found because the checkout itself is on Python's path
    raise ImportError(
        "this folder is imported as joulemap.models: run Python with -P, or from another folder"
    )

from importlib import import_module
from typing import TYPE_CHECKING, Any

from joulemap import moved_modules

from .registry import PREDICTORS, register

if TYPE_CHECKING:
    from .aligned.predictor import AlignedBilinearPredictor
    from .auto import AutoPredictor
    from .base.contradictions import ContradictionWarning
    from .base.cost_module import CostModule
    from .base.extrapolation import ExtrapolationWarning
    from .base.fittable import FittableDataset
    from .base.predictor import Predictor
    from .base.selection import farthest_points
    from .base.surrogate import SurrogateWarning
    from .base.training import Training
    from .budgets.budget import Budget
    from .evaluation import Evaluation, evaluate
    from .export import to_onnx_file, to_torch_file
    from .fitting import CrossValidation, cross_validate, fit
    from .layers.layerwise import LayerwisePredictor, UnmeasuredLayersWarning
    from .layers.lookup import LookupTablePredictor
    from .learned.gaussian_process import GaussianProcessPredictor
    from .learned.neural import NeuralPredictor
    from .learned.trees import TreesPredictor
    from .linear.bilinear import BilinearPredictor
    from .linear.flops import FlopsPredictor, ParametersPredictor
    from .serialization import load, save
    from .systolic.hardware import SystolicHardware
    from .systolic.predictor import SystolicArrayModel
    from .transfer.predictor import TransferPredictor

__all__ = [
    "AlignedBilinearPredictor",
    "AutoPredictor",
    "BilinearPredictor",
    "Budget",
    "ContradictionWarning",
    "CostModule",
    "CrossValidation",
    "Evaluation",
    "ExtrapolationWarning",
    "FittableDataset",
    "FlopsPredictor",
    "GaussianProcessPredictor",
    "LayerwisePredictor",
    "LookupTablePredictor",
    "NeuralPredictor",
    "ParametersPredictor",
    "Predictor",
    "SurrogateWarning",
    "SystolicArrayModel",
    "SystolicHardware",
    "Training",
    "TransferPredictor",
    "TreesPredictor",
    "UnmeasuredLayersWarning",
    "cross_validate",
    "evaluate",
    "farthest_points",
    "fit",
    "load",
    "register",
    "save",
    "to_onnx_file",
    "to_torch_file",
]

_MODULES = {
    "Budget": "budgets.budget",
    "ContradictionWarning": "base.contradictions",
    "CostModule": "base.cost_module",
    "CrossValidation": "fitting",
    "Evaluation": "evaluation",
    "ExtrapolationWarning": "base.extrapolation",
    "FittableDataset": "base.fittable",
    "Predictor": "base.predictor",
    "SurrogateWarning": "base.surrogate",
    "SystolicHardware": "systolic.hardware",
    "Training": "base.training",
    "UnmeasuredLayersWarning": "layers.layerwise",
    "cross_validate": "fitting",
    "evaluate": "evaluation",
    "farthest_points": "base.selection",
    "fit": "fitting",
    "load": "serialization",
    "save": "serialization",
    "to_onnx_file": "export",
    "to_torch_file": "export",
    **{entry.class_name: entry.module for entry in PREDICTORS.values()},
}


# Where modules lay before they came into wings: their old names work, with a warning, until 0.3.
moved_modules.keep_old_names(
    __name__,
    {
        "aligned_advice": "aligned.advice",
        "aligned_design": "aligned.design",
        "aligned_fit": "aligned.fit",
        "aligned_module": "aligned.module",
        "aligned_terms": "aligned.terms",
        "aligned_words": "aligned.words",
        "allocation": "budgets.allocation",
        "allocation_local": "budgets.allocation_local",
        "allocation_search": "budgets.allocation_search",
        "augmented_lagrangian": "budgets.augmented_lagrangian",
        "bilinear": "linear.bilinear",
        "budget": "budgets.budget",
        "budget_check": "budgets.check",
        "constraint": "budgets.constraint",
        "contradictions": "base.contradictions",
        "cost_module": "base.cost_module",
        "error_scale": "base.error_scale",
        "extrapolation": "base.extrapolation",
        "fittable": "base.fittable",
        "flops": "linear.flops",
        "gaussian_kernel": "base.kernel",
        "gaussian_process": "learned.gaussian_process",
        "input_checks": "base.input_checks",
        "intervals": "base.intervals",
        "layer_terms": "layers.terms",
        "layerwise": "layers.layerwise",
        "layerwise_fit": "layers.layerwise_fit",
        "lookup": "layers.lookup",
        "lookup_fit": "layers.lookup_fit",
        "lookup_grid": "layers.lookup_grid",
        "lookup_module": "layers.lookup_module",
        "measured_under": "base.measured_under",
        "neural": "learned.neural",
        "neural_features": "learned.neural_features",
        "neural_fit": "learned.neural_fit",
        "neural_module": "learned.neural_module",
        "paired_choice": "aligned.paired_choice",
        "pairwise_cost": "budgets.pairwise_cost",
        "polynomial": "base.polynomial",
        "predictor": "base.predictor",
        "profiled_dataset": "layers.profiled_dataset",
        "projection": "budgets.projection",
        "repeated_rows": "base.repeated_rows",
        "rounding": "budgets.rounding",
        "selection": "base.selection",
        "size_matrix": "base.size_matrix",
        "source_stacker": "transfer.source_stacker",
        "surrogate": "base.surrogate",
        "systolic_energy": "systolic.energy",
        "systolic_hardware": "systolic.hardware",
        "systolic_layers": "systolic.layers",
        "systolic_module": "systolic.module",
        "systolic_torch": "systolic.torch_layers",
        "trees": "learned.trees",
        "trend": "learned.trend",
        "whole_calls": "base.whole_calls",
    },
)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
