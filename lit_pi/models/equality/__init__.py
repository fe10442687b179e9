"""Proof that a model here computes what stock transformers computes."""
