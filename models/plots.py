"""Figures of a fitted predictor. matplotlib is imported when one is drawn."""

from __future__ import annotations

from .base.plots import cost_name, display_unit, plot_error, plot_width

__all__ = ["cost_name", "display_unit", "plot_error", "plot_width"]
