"""A new device from few measurements and from predictors of others."""

from .predictor import TransferPredictor
from .source_stacker import SourceStacker, denoise

__all__ = ["SourceStacker", "TransferPredictor", "denoise"]
