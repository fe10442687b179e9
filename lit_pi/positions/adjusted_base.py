"""Adjusted base frequency: another base, chosen by hand."""

from typing import Annotated, Any

from jaxtyping import Float32
from torch import Tensor

from lit_pi.positions.base import PositionStrategy
from lit_pi.positions.rope import Rope
from lit_pi.ranges import Range, in_range


class AdjustedBase(PositionStrategy):
    """Rotary positions with another base, "ABF" (Xiong et al. 2023, arXiv 2309.16039, section 4.1).

    Args:
        rope_theta: the new base; the paper's is 500,000 for models pre-trained with 10,000.

    Raises:
        UserError: the base is not larger than 1.
    """

    @in_range
    def __init__(self, rope_theta: Annotated[float, Range(1, above=True)] = 500_000.0) -> None:
        self.rope_theta = rope_theta

    def inv_freq(self, rope: Rope, context_length: int) -> Float32[Tensor, " half"]:
        """Frequencies of the new base."""
        return rope._replace(rope_theta=self.rope_theta).inv_freq()

    def rope_parameters(self, rope: Rope) -> dict[str, Any]:
        """Transformers' `default` type with the new base."""
        return {"rope_type": "default", "rope_theta": self.rope_theta}
