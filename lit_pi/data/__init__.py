"""Documents, token stores, training sequences and evaluations, as LightningDataModules."""

from lit_pi.data.module import LongContextData

__all__ = ["LongContextData"]
