"""Resonance: wavelengths rounded to whole tokens."""

import math

from jaxtyping import Float32
from torch import Tensor

from lit_pi.positions.derived import DerivedStrategy
from lit_pi.positions.rope import Rope


class Resonance(DerivedStrategy):
    """theta' = 2 pi / round(2 pi / theta) for another strategy's frequencies (Wang et al. 2024, arXiv 2403.00071, 4.1).

    Whole wavelengths repeat exactly, so a fast frequency meets no phase in a long sequence that it has not seen.

    Args:
        inner: the strategy whose frequencies are rounded, by default `Extrapolate`; `YaRN` makes "Resonance YaRN".
    """

    def inv_freq(self, rope: Rope, context_length: int) -> Float32[Tensor, " half"]:
        """Frequencies of whole wavelengths."""
        wavelengths = 2 * math.pi / self.inner.inv_freq(rope, context_length)
        return rope.divided_by(rope.factors_of(2 * math.pi / wavelengths.round()))  # as an export has them
