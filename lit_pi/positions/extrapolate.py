"""No change: positions beyond the original context are angles the model has never seen."""

from typing import Any

from jaxtyping import Float32
from torch import Tensor

from lit_pi.positions.base import PositionStrategy
from lit_pi.positions.rope import Rope


class Extrapolate(PositionStrategy):
    """Rotary positions as they were pre-trained: f(x, m) (Su et al. 2021, arXiv 2104.09864, section 3.2).

    Direct fine-tuning at a longer context is this strategy too (the "FT" rows of Chen et al. 2023).
    """

    def inv_freq(self, rope: Rope, context_length: int) -> Float32[Tensor, " half"]:
        """Frequencies of pre-training, at any length."""
        return rope.inv_freq()

    def rope_parameters(self, rope: Rope) -> dict[str, Any]:
        """Transformers' `default` type."""
        return {"rope_type": "default", "rope_theta": rope.rope_theta}
