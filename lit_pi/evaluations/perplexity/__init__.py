"""Perplexity of documents against context length."""
