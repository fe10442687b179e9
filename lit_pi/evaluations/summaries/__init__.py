"""Summaries of documents, measured against references."""
