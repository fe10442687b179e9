"""Models split over devices."""

from lightning.pytorch.strategies import StrategyRegistry

from lit_pi.parallel.fsdp2 import FSDP2
from lit_pi.parallel.step_loss import StepLoss

__all__ = ["FSDP2", "StepLoss"]

# A bare name is a word for Lightning, which looks it up here, and not a class path.
StrategyRegistry.register("fsdp2", FSDP2, description="Sharding with float32 weights and bfloat16 compute")
