"""The scaling of Llama 3.1."""

import math
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from lit_pi.errors import UserError
from lit_pi.positions.base import StretchingStrategy
from lit_pi.positions.rope import Rope
from lit_pi.ranges import Positive, Stretch, Tokens, in_range


class Llama3(StretchingStrategy):
    """Long wavelengths divided by the scale, short ones kept, those between blended (Llama 3.1, 2024).

    With r the rotations of a frequency in the original context: kept for r > `high_freq_factor`, divided for
    r < `low_freq_factor`, and (1 - g) theta / s + g theta between, g rising linearly with r.

    Args:
        scale: target context over original context (s = L' / L), at least 1.
        target_context: tokens of context to reach (L'), from which the scale follows; instead of `scale`.
        low_freq_factor: rotations in the original context below which a frequency is divided.
        high_freq_factor: rotations in the original context above which a frequency is kept.

    Raises:
        UserError: not 0 < low_freq_factor < high_freq_factor.
    """

    @in_range
    def __init__(
        self,
        scale: Stretch | None = None,
        target_context: Tokens | None = None,
        low_freq_factor: Positive = 1.0,
        high_freq_factor: Positive = 4.0,
    ) -> None:
        super().__init__(scale, target_context)
        if not 0 < low_freq_factor < high_freq_factor:
            raise UserError(
                f"Llama3 got low_freq_factor {low_freq_factor:g} and high_freq_factor {high_freq_factor:g}: "
                "they are rotations in the original context, 0 < low_freq_factor < high_freq_factor"
            )
        self.low_freq_factor = low_freq_factor
        self.high_freq_factor = high_freq_factor

    def inv_freq(self, rope: Rope, context_length: int) -> Float32[Tensor, " half"]:
        """Frequencies divided, kept or blended."""
        inv_freq, scale = rope.inv_freq(), self.scale_of(rope)
        wavelength = 2 * math.pi / inv_freq
        kept = (rope.original_context / wavelength - self.low_freq_factor) / (
            self.high_freq_factor - self.low_freq_factor
        )
        blended = (1 - kept) * inv_freq / scale + kept * inv_freq
        long = wavelength > rope.original_context / self.low_freq_factor
        short = wavelength < rope.original_context / self.high_freq_factor
        return torch.where(long, inv_freq / scale, torch.where(short, inv_freq, blended))

    def rope_parameters(self, rope: Rope) -> dict[str, Any]:
        """Transformers' `llama3` type."""
        return {
            "rope_type": "llama3",
            "rope_theta": rope.rope_theta,
            "factor": self.scale_of(rope),
            "low_freq_factor": self.low_freq_factor,
            "high_freq_factor": self.high_freq_factor,
            "original_max_position_embeddings": rope.original_context,
        }
