"""Documents, token stores, training sequences and evaluations, as LightningDataModules."""

from lit_pi.data.module import LongContextData
from lit_pi.data.modules import PG19, GovReport, Passkey, Pile, ProofPile, RedPajama

__all__ = ["PG19", "GovReport", "LongContextData", "Passkey", "Pile", "ProofPile", "RedPajama"]
