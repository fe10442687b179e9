"""Additions to a model that trains: less memory, float8, adapters."""
