"""Predictor files: how they are written, and how what was found is read from them."""
