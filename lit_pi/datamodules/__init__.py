"""LightningDataModules: what to train on, and what to evaluate."""

from lit_pi.datamodules.long_context import LongContextData
from lit_pi.datamodules.paper import PG19, GovReport, Passkey, Pile, ProofPile, RedPajama

__all__ = ["PG19", "GovReport", "LongContextData", "Passkey", "Pile", "ProofPile", "RedPajama"]
