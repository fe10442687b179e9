"""No positions at all: order is left to the causal mask."""

from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from lit_pi.positions.base import PositionStrategy
from lit_pi.positions.rope import Rope


class NoPositions(PositionStrategy):
    """All angles zero, to be followed by a short recalibration, "DroPE" (Gelberg et al. 2025, arXiv 2512.12167)."""

    def inv_freq(self, rope: Rope, context_length: int) -> Float32[Tensor, " half"]:
        """Zeros."""
        return torch.zeros(rope.head_dim // 2, dtype=torch.float32)

    def rope_parameters(self, rope: Rope) -> dict[str, Any]:
        """Transformers' `proportional` type, of whose frequencies none is kept."""
        return {"rope_type": "proportional", "rope_theta": rope.rope_theta, "partial_rotary_factor": 0.0}
