"""What a rotary position embedding was pre-trained with."""

from typing import NamedTuple

import torch
from jaxtyping import Float32
from torch import Tensor


class Rope(NamedTuple):
    """The rotary embedding of pre-training, before any extension.

    Attributes:
        head_dim: rotated dimensions of an attention head.
        rope_theta: the base c of the frequencies c^(-2j/d).
        original_context: tokens of context the model was pre-trained with (L).
    """

    head_dim: int
    rope_theta: float
    original_context: int

    def inv_freq(self, count: int | None = None) -> Float32[Tensor, " half"]:
        """Frequencies theta_j = rope_theta^(-2j / head_dim) in radians a token (RoFormer, section 3.2.2).

        Args:
            count: how many of them, from the highest on; all by default.
        """
        return 1.0 / self.tokens_per_radian(count)

    def tokens_per_radian(self, count: int | None = None) -> Float32[Tensor, " half"]:
        """Their reciprocals, computed first, as transformers does: both agree to the bit."""
        end = self.head_dim if count is None else 2 * count
        exponents = torch.arange(0, end, 2, dtype=torch.float32) / self.head_dim
        return self.rope_theta**exponents
