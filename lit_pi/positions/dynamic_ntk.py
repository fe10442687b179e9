"""Dynamic NTK scaling: the base follows the length of the sequence."""

from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from lit_pi.positions.base import StretchingStrategy
from lit_pi.positions.ntk_aware import ntk_base
from lit_pi.positions.rope import Rope


class DynamicNTK(StretchingStrategy):
    """NTK-aware scaling by s l / L - (s - 1) for a sequence of l > L tokens (emozilla 2023; arXiv 2309.00071, B.2).

    Nothing changes up to the original context. The same token has other angles in a longer sequence, so every
    context length is scored with a forward of its own, and generation has to settle its length beforehand.

    Args:
        scale: how fast the base grows with the length (s), at least 1.
        target_context: tokens of context to reach (L'), from which the scale follows; instead of `scale`.
    """

    @property
    def prefix_consistent(self) -> bool:
        """False: the angles depend on the length of the sequence."""
        return False

    def inv_freq(self, rope: Rope, context_length: int) -> Float32[Tensor, " half"]:
        """Frequencies of the base for this length."""
        if context_length <= rope.original_context:
            return rope.inv_freq()
        scale = self.scale_of(rope)
        length = torch.tensor(context_length, dtype=torch.float32)  # as transformers computes the base in a model
        return ntk_base(rope, scale * length / rope.original_context - (scale - 1)).inv_freq()

    def rope_parameters(self, rope: Rope) -> dict[str, Any]:
        """Transformers' `dynamic` type; it reads L from `max_position_embeddings`, which must not be raised."""
        return {"rope_type": "dynamic", "rope_theta": rope.rope_theta, "factor": self.scale_of(rope)}
