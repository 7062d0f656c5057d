"""What a network costs: predictors and the torch modules they give."""

from .bilinear import BilinearPredictor
from .cost_module import CostModule
from .flops import FlopsPredictor, ParametersPredictor
from .predictor import ExtrapolationWarning, FittableDataset, Predictor

__all__ = [
    "BilinearPredictor",
    "CostModule",
    "ExtrapolationWarning",
    "FittableDataset",
    "FlopsPredictor",
    "ParametersPredictor",
    "Predictor",
]
