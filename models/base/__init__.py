"""What all predictors stand on: estimators, cost modules, inputs, intervals, features."""
