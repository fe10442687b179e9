"""Controlled comparison: position strategies under the same data, seeds, budget, kernel and evaluations."""
