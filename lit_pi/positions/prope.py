"""Proportional rotary positions: only the high frequencies turn."""

from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from lit_pi.positions.base import PositionStrategy
from lit_pi.positions.rope import Rope
from lit_pi.ranges import Share, Stretch, in_range


class PRoPE(PositionStrategy):
    """The highest share p of the frequencies; the others are zero (Barbero et al. 2024, arXiv 2410.06205, section 6).

    Args:
        fraction: share of the frequencies that is kept (p), above 0 and at most 1.
        scale: what the kept ones are divided by, as in Position Interpolation; 1 by default.

    Raises:
        UserError: the share is not in that range, or the scale below 1.
    """

    @in_range
    def __init__(self, fraction: Share = 0.75, scale: Stretch = 1.0) -> None:
        self.fraction = fraction
        self.scale = scale

    def inv_freq(self, rope: Rope, context_length: int) -> Float32[Tensor, " half"]:
        """Frequencies of pre-training, the lowest ones replaced by zero."""
        inv_freq = rope.inv_freq(int(self.fraction * rope.head_dim // 2)) / self.scale
        return torch.cat((inv_freq, torch.zeros(rope.head_dim // 2 - len(inv_freq), dtype=torch.float32)))

    def target_context_of(self, rope: Rope) -> int:
        """Tokens of the stretched context (L')."""
        return round(self.scale * rope.original_context)

    def rope_parameters(self, rope: Rope) -> dict[str, Any]:
        """Transformers' `proportional` type."""
        return {
            "rope_type": "proportional",
            "rope_theta": rope.rope_theta,
            "partial_rotary_factor": self.fraction,
            **({} if self.scale == 1 else {"factor": self.scale}),
        }
