"""Adjusted base frequency: another base, chosen by hand."""

from typing import Any

from jaxtyping import Float32
from torch import Tensor

from lit_pi.errors import UserError
from lit_pi.positions.base import PositionStrategy
from lit_pi.positions.rope import Rope


class AdjustedBase(PositionStrategy):
    """Rotary positions with another base, "ABF" (Xiong et al. 2023, arXiv 2309.16039, section 4.1).

    Args:
        rope_theta: the new base; the paper's is 500,000 for models pre-trained with 10,000.

    Raises:
        UserError: the base is not larger than 1.
    """

    def __init__(self, rope_theta: float = 500_000.0) -> None:
        if not 1 < rope_theta < float("inf"):
            raise UserError(f"AdjustedBase got rope_theta {rope_theta:g}: a base is a number above 1")
        self.rope_theta = rope_theta

    def inv_freq(self, rope: Rope, context_length: int) -> Float32[Tensor, " half"]:
        """Frequencies of the new base."""
        return rope._replace(rope_theta=self.rope_theta).inv_freq()

    def rope_parameters(self, rope: Rope) -> dict[str, Any]:
        """Transformers' `default` type with the new base."""
        return {"rope_type": "default", "rope_theta": self.rope_theta}
