"""LongRoPE: a factor for every frequency, found by search."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from lit_pi.errors import UserError
from lit_pi.positions.base import StretchingStrategy
from lit_pi.positions.rope import Rope
from lit_pi.ranges import Positive, Stretch, Tokens, in_range

Factors = list[float] | str


class LongRoPE(StretchingStrategy):
    """Frequencies divided by searched factors: theta_j / lambda_j (Ding et al. 2024, arXiv 2402.13753, equation 4).

    One set of factors serves sequences up to the original context, another one longer sequences. All positions are
    stretched, as in transformers and the models that were released: the first tokens that the paper's equation leaves
    as they were are none there.

    Args:
        long_factor: a factor for each frequency, in a list or in a JSON file that holds a list, or an object with
            `long_factor` (and `short_factor`, used where the argument is not given).
        short_factor: the same for sequences within the original context; all 1 by default.
        scale: target context over original context (s = L' / L); it sets the attention factor.
        target_context: tokens of context to reach (L'), from which the scale follows; instead of `scale`.
        attention_factor: factor on cosine and sine; sqrt(1 + ln s / ln L) by default.

    Raises:
        UserError: a file cannot be read, a factor is not positive, or there is not one for each frequency.
    """

    @in_range
    def __init__(
        self,
        long_factor: Factors,
        short_factor: Factors | None = None,
        scale: Stretch | None = None,
        target_context: Tokens | None = None,
        attention_factor: Positive | None = None,
    ) -> None:
        super().__init__(scale, target_context)
        self.long_factor = _read(long_factor, "long_factor")
        if short_factor is None:
            short_factor = _in_file(long_factor).get("short_factor", [1.0] * len(self.long_factor))
        self.short_factor = _read(short_factor, "short_factor")
        self.attention_factor = attention_factor

    @property
    def prefix_consistent(self) -> bool:
        """Whether both sets of factors are the same."""
        return self.short_factor == self.long_factor

    def inv_freq(self, rope: Rope, context_length: int) -> Float32[Tensor, " half"]:
        """Frequencies of pre-training divided by the factors for this length."""
        factors = self.long_factor if context_length > rope.original_context else self.short_factor
        if len(factors) != rope.head_dim // 2:
            raise UserError(
                f"LongRoPE got {len(factors)} factors, and the model has {rope.head_dim // 2} frequencies: "
                "give one factor for each"
            )
        return rope.divided_by(torch.tensor(factors, dtype=torch.float32))

    def attention_scaling(self, rope: Rope, context_length: int) -> float:
        """The attention factor."""
        if self.attention_factor is not None:
            return self.attention_factor
        return math.sqrt(1 + math.log(self.scale_of(rope)) / math.log(rope.original_context))

    def rope_parameters(self, rope: Rope) -> dict[str, Any]:
        """Transformers' `longrope` type."""
        return {
            "rope_type": "longrope",
            "rope_theta": rope.rope_theta,
            "factor": self.scale_of(rope),
            "original_max_position_embeddings": rope.original_context,
            "short_factor": self.short_factor,
            "long_factor": self.long_factor,
            "attention_factor": self.attention_scaling(rope, rope.original_context),
        }


def _read(factors: Factors, name: str) -> list[float]:
    """Factors from a list, or from a JSON file that holds one."""
    given = _in_file(factors).get(name) if isinstance(factors, str) else factors
    try:
        numbers = [float(factor) for factor in given or []]
    except (TypeError, ValueError):
        numbers = []
    if not numbers or not all(0 < number < math.inf for number in numbers):
        where = f" in {factors}" if isinstance(factors, str) else ""
        raise UserError(f"LongRoPE got {name}{where} that is not a list of positive numbers, one for each frequency")
    return numbers


def _in_file(factors: Factors) -> dict[str, Any]:
    """Read a JSON file of factors, by name; a bare list is the long factors."""
    if not isinstance(factors, str):
        return {}
    try:
        content = json.loads(Path(factors).expanduser().read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"LongRoPE cannot read its factors from {factors} ({error}): name a JSON file") from error
    return content if isinstance(content, dict) else {"long_factor": content}
