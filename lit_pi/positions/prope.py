"""Proportional rotary positions: only the high frequencies turn."""

from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from lit_pi.errors import UserError
from lit_pi.positions.base import PositionStrategy
from lit_pi.positions.rope import Rope


class PRoPE(PositionStrategy):
    """The highest share p of the frequencies; the others are zero (Barbero et al. 2024, arXiv 2410.06205, section 6).

    Args:
        fraction: share of the frequencies that is kept (p), above 0 and at most 1.

    Raises:
        UserError: the share is not in that range.
    """

    def __init__(self, fraction: float = 0.75) -> None:
        if not 0 < fraction <= 1:
            raise UserError(f"PRoPE got fraction {fraction:g}: it is the share of frequencies kept, in (0, 1]")
        self.fraction = fraction

    def inv_freq(self, rope: Rope, context_length: int) -> Float32[Tensor, " half"]:
        """Frequencies of pre-training, the lowest ones replaced by zero."""
        inv_freq = rope.inv_freq(int(self.fraction * rope.head_dim // 2))
        return torch.cat((inv_freq, torch.zeros(rope.head_dim // 2 - len(inv_freq), dtype=torch.float32)))

    def rope_parameters(self, rope: Rope) -> dict[str, Any]:
        """Transformers' `proportional` type."""
        return {
            "rope_type": "proportional",
            "rope_theta": rope.rope_theta,
            "partial_rotary_factor": self.fraction,
        }
