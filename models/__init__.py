"""What a network costs: predictors and the torch modules they give."""
