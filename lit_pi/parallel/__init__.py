"""Sharding over devices."""

from lit_pi.parallel.fsdp2 import FSDP2

__all__ = ["FSDP2"]
