"""Reference compressors that consume predictors."""
