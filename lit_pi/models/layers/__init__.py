"""Decoder layers and the loss, and how they run."""
