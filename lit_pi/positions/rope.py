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

    def inv_freq(self) -> Float32[Tensor, " half"]:
        """Frequencies theta_j = rope_theta^(-2j / head_dim) in radians a token (RoFormer, section 3.2.2)."""
        exponents = torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim
        return 1.0 / (self.rope_theta**exponents)
