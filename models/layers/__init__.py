"""Predictors of single layers: rates that all networks share, and tables."""
