"""Models split over devices."""

from lightning.pytorch.strategies import StrategyRegistry

from lit_pi.parallel.fsdp2 import FSDP2
from lit_pi.parallel.reduction import mean_over_ranks

__all__ = ["FSDP2", "mean_over_ranks"]

# A bare name is a word for Lightning, which looks it up here, and not a class path.
StrategyRegistry.register("fsdp2", FSDP2, description="Sharding with float32 weights and bfloat16 compute")
