"""Clipped rotary positions: the lowest frequencies fade to zero."""

from typing import Annotated

import torch
from jaxtyping import Float32
from torch import Tensor

from lit_pi.positions.base import PositionStrategy
from lit_pi.positions.derived import DerivedStrategy
from lit_pi.positions.rope import Rope
from lit_pi.ranges import Range, in_range


class CoPE(DerivedStrategy):
    """The n lowest of another strategy's frequencies times (1 + cos(pi k / (n - 1))) / 2 (Li et al. 2026, 2602.05258).

    k runs from 0 to n - 1, so the first of them is kept and the lowest is zero.

    Args:
        inner: the strategy whose frequencies are clipped, by default `Extrapolate`; the paper's is `AdjustedBase`.
        clipped: how many frequencies fade (n), the paper's 20 of 64 by default; all of a model that has fewer.

    Raises:
        UserError: fewer than two frequencies would fade.
    """

    @in_range
    def __init__(self, inner: PositionStrategy | None = None, clipped: Annotated[int, Range(2)] = 20) -> None:
        super().__init__(inner)
        self.clipped = clipped

    def inv_freq(self, rope: Rope, context_length: int) -> Float32[Tensor, " half"]:
        """Frequencies, the lowest fading to zero."""
        inv_freq = self.inner.inv_freq(rope, context_length).clone()
        clipped = min(self.clipped, len(inv_freq))
        fade = (1 + torch.linspace(0, torch.pi, clipped, dtype=torch.float64).cos()) / 2
        inv_freq[-clipped:] *= fade.float()
        return inv_freq
