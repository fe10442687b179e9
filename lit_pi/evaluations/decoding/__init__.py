"""Decoding with a cache, compared with a full pass."""
