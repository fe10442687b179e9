"""NTK-by-parts: each frequency is kept, interpolated, or blended, by how often it turns in the original context."""

import math
from typing import Any, Literal

import torch
from jaxtyping import Float32
from torch import Tensor

from lit_pi.errors import UserError
from lit_pi.positions.base import StretchingStrategy
from lit_pi.positions.rope import Rope
from lit_pi.ranges import Positive, Stretch, Tokens, in_range

Ramp = Literal["rotations", "dimensions"]


class NTKByParts(StretchingStrategy):
    """theta' = (1 - g) theta / s + g theta (Peng et al. 2023, arXiv 2309.00071, section 3.2, equations 17 to 20).

    g is 1 for frequencies that turn more than `beta_fast` times in the original context, 0 for those that turn less
    than `beta_slow` times.

    Args:
        scale: target context over original context (s = L' / L), at least 1.
        target_context: tokens of context to reach (L'), from which the scale follows; instead of `scale`.
        beta_fast: rotations in the original context from which a frequency is kept (the paper's beta).
        beta_slow: rotations in the original context up to which a frequency is interpolated (the paper's alpha).
        ramp: g rises linearly between them in `rotations`, as the paper's equation 18 says, or in `dimensions`, as
            its authors' code and transformers do.
        truncate: let the ramp in `dimensions` begin and end at whole dimensions, which GPT-OSS does not.

    Raises:
        UserError: not 0 < beta_slow < beta_fast.
    """

    @in_range
    def __init__(
        self,
        scale: Stretch | None = None,
        target_context: Tokens | None = None,
        beta_fast: Positive = 32.0,
        beta_slow: Positive = 1.0,
        ramp: Ramp = "rotations",
        truncate: bool = True,
    ) -> None:
        super().__init__(scale, target_context)
        if not 0 < beta_slow < beta_fast:
            raise UserError(
                f"{type(self).__name__} got beta_slow {beta_slow:g} and beta_fast {beta_fast:g}: "
                "they are rotations in the original context, 0 < beta_slow < beta_fast"
            )
        self.beta_fast = beta_fast
        self.beta_slow = beta_slow
        self.ramp = ramp
        self.truncate = truncate

    def inv_freq(self, rope: Rope, context_length: int) -> Float32[Tensor, " half"]:
        """Frequencies blended between interpolated and kept."""
        interpolated = 1.0 / (self.scale_of(rope) * rope.tokens_per_radian())
        kept = self._kept(rope)
        blended = interpolated * (1 - kept) + rope.inv_freq() * kept
        # To the bit as transformers' `yarn` type has them, or, for the ramp it does not know, its `longrope` type.
        return blended if self.ramp == "dimensions" else rope.divided_by(rope.factors_of(blended))

    def rope_parameters(self, rope: Rope) -> dict[str, Any]:
        """Transformers' `yarn` type without its temperature; `longrope` factors for the ramp it does not know."""
        if self.ramp == "rotations":
            return super().rope_parameters(rope)
        return {
            "rope_type": "yarn",
            "rope_theta": rope.rope_theta,
            "factor": self.scale_of(rope),
            "original_max_position_embeddings": rope.original_context,
            "beta_fast": self.beta_fast,
            "beta_slow": self.beta_slow,
            "attention_factor": self.attention_scaling(rope, rope.original_context),
            **({} if self.truncate else {"truncate": False}),
        }

    def _kept(self, rope: Rope) -> Float32[Tensor, " half"]:
        """Share of each frequency that is kept (the paper's gamma), from 0 to 1."""
        if self.ramp == "rotations":
            rotations = rope.original_context * rope.inv_freq() / (2 * math.pi)
            return ((rotations - self.beta_slow) / (self.beta_fast - self.beta_slow)).clamp(0, 1)
        low, high = self._dimension(rope, self.beta_fast), self._dimension(rope, self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, rope.head_dim - 1)
        width = high - low or 0.001  # as transformers does where both ends meet
        dimensions = torch.arange(rope.head_dim // 2, dtype=torch.float32)
        return 1 - ((dimensions - low) / width).clamp(0, 1)

    @staticmethod
    def _dimension(rope: Rope, rotations: float) -> float:
        """Index (not rounded) of the frequency that turns so many times in the original context."""
        periods = rope.original_context / (rotations * 2 * math.pi)
        return rope.head_dim * math.log(periods) / (2 * math.log(rope.rope_theta))
