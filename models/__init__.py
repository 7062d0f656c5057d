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

from .registry import PREDICTORS

if TYPE_CHECKING:
    from .aligned import AlignedBilinearPredictor
    from .auto import AutoPredictor
    from .bilinear import BilinearPredictor
    from .budget import Budget
    from .contradictions import ContradictionWarning
    from .cost_module import CostModule
    from .evaluation import Evaluation, evaluate
    from .export import to_onnx_file, to_torch_file
    from .extrapolation import ExtrapolationWarning
    from .fittable import FittableDataset
    from .fitting import CrossValidation, cross_validate, fit
    from .flops import FlopsPredictor, ParametersPredictor
    from .gaussian_process import GaussianProcessPredictor
    from .layerwise import LayerwisePredictor, UnmeasuredLayersWarning
    from .lookup import LookupTablePredictor
    from .neural import NeuralPredictor
    from .predictor import Predictor
    from .selection import farthest_points
    from .serialization import load, save
    from .surrogate import SurrogateWarning
    from .systolic import SystolicArrayModel
    from .systolic_hardware import SystolicHardware
    from .transfer import TransferPredictor
    from .trees import TreesPredictor

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
    "TransferPredictor",
    "TreesPredictor",
    "UnmeasuredLayersWarning",
    "cross_validate",
    "evaluate",
    "farthest_points",
    "fit",
    "load",
    "save",
    "to_onnx_file",
    "to_torch_file",
]

_MODULES = {
    "Budget": "budget",
    "ContradictionWarning": "contradictions",
    "CostModule": "cost_module",
    "CrossValidation": "fitting",
    "Evaluation": "evaluation",
    "ExtrapolationWarning": "extrapolation",
    "FittableDataset": "fittable",
    "Predictor": "predictor",
    "SurrogateWarning": "surrogate",
    "SystolicHardware": "systolic_hardware",
    "UnmeasuredLayersWarning": "layerwise",
    "cross_validate": "fitting",
    "evaluate": "evaluation",
    "farthest_points": "selection",
    "fit": "fitting",
    "load": "serialization",
    "save": "serialization",
    "to_onnx_file": "export",
    "to_torch_file": "export",
    **{entry.class_name: entry.module for entry in PREDICTORS.values()},
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
