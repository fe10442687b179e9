"""Sources of weights: drawn at random, or read from disk."""
