"""NTK-aware scaling: a larger base instead of squeezed positions."""

from typing import Any

from jaxtyping import Float32
from torch import Tensor

from lit_pi.positions.base import StretchingStrategy
from lit_pi.positions.rope import Rope


class NTKAware(StretchingStrategy):
    """A base of c' = c s^(d / (d - 2)) (bloc97 2023; Peng et al. 2023, arXiv 2309.00071, section 3.1).

    The lowest frequency is interpolated by the scale, the highest kept, the others in between.

    Args:
        scale: target context over original context (s = L' / L), at least 1.
        target_context: tokens of context to reach (L'), from which the scale follows; instead of `scale`.
    """

    def inv_freq(self, rope: Rope, context_length: int) -> Float32[Tensor, " half"]:
        """Frequencies of the larger base."""
        return self._stretched(rope).inv_freq()

    def rope_parameters(self, rope: Rope) -> dict[str, Any]:
        """Transformers' `default` type with the larger base."""
        return {"rope_type": "default", "rope_theta": self._stretched(rope).rope_theta}

    def _stretched(self, rope: Rope) -> Rope:
        return ntk_base(rope, self.scale_of(rope))


def ntk_base(rope: Rope, scale: float | Float32[Tensor, ""]) -> Rope:
    """The rope whose lowest frequency is the given one's divided by the scale, in the scale's precision."""
    return rope._replace(rope_theta=float(rope.rope_theta * scale ** (rope.head_dim / (rope.head_dim - 2))))
