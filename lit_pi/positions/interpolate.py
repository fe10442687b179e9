"""Position Interpolation: positions are squeezed into the range of pre-training."""

from typing import Any

from jaxtyping import Float32
from torch import Tensor

from lit_pi.positions.base import StretchingStrategy
from lit_pi.positions.rope import Rope


class Interpolate(StretchingStrategy):
    """Position Interpolation: f'(x, m) = f(x, m L / L') (Chen et al. 2023, arXiv 2306.15595, equation 4).

    Dividing the position or the frequency by the scale is the same angle; the frequency is divided, as
    transformers' `linear` type does, so that both agree to the bit.

    Args:
        scale: target context over original context (s = L' / L), at least 1.
        target_context: tokens of context to reach (L'), from which the scale follows; instead of `scale`.
    """

    def inv_freq(self, rope: Rope, context_length: int) -> Float32[Tensor, " half"]:
        """Frequencies of pre-training divided by the scale."""
        return rope.inv_freq() / self.scale_of(rope)

    def rope_parameters(self, rope: Rope) -> dict[str, Any]:
        """Transformers' `linear` type."""
        return {"rope_type": "linear", "rope_theta": rope.rope_theta, "factor": self.scale_of(rope)}
