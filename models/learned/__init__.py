"""Predictors that learn freely over a trend: Gaussian process, networks of neurons, trees."""
