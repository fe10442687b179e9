"""YaRN: NTK-by-parts and a temperature on the attention scores."""

import math

from lit_pi.positions.ntk_by_parts import NTKByParts, Ramp
from lit_pi.positions.rope import Rope
from lit_pi.ranges import Positive, Stretch, Tokens, in_range


class YaRN(NTKByParts):
    """NTK-by-parts with scores divided by a temperature t, sqrt(1 / t) = 0.1 ln s + 1 (arXiv 2309.00071, eq. 22).

    Args:
        scale: target context over original context (s = L' / L), at least 1.
        target_context: tokens of context to reach (L'), from which the scale follows; instead of `scale`.
        beta_fast: rotations in the original context from which a frequency is kept.
        beta_slow: rotations in the original context up to which a frequency is interpolated.
        ramp: `dimensions`, as its authors' code and transformers do, or `rotations`, as the paper's equation 18 says.
        attention_factor: factor on cosine and sine, sqrt(1 / t); it follows from the scale by default.
        truncate: let the ramp in `dimensions` begin and end at whole dimensions, as its authors do; GPT-OSS does not.

    Raises:
        UserError: not 0 < beta_slow < beta_fast, or an attention factor that is not positive.
    """

    @in_range
    def __init__(
        self,
        scale: Stretch | None = None,
        target_context: Tokens | None = None,
        beta_fast: Positive = 32.0,
        beta_slow: Positive = 1.0,
        ramp: Ramp = "dimensions",
        attention_factor: Positive | None = None,
        truncate: bool = True,
    ) -> None:
        super().__init__(scale, target_context, beta_fast, beta_slow, ramp, truncate)
        self.attention_factor = attention_factor

    def attention_scaling(self, rope: Rope, context_length: int) -> float:
        """sqrt(1 / t)."""
        return self.attention_factor or temperature(self.scale_of(rope))


def temperature(scale: float, slope: float = 1.0) -> float:
    """sqrt(1 / t) = 0.1 ln s + 1, with another slope where a config has `mscale`."""
    return 0.1 * slope * math.log(scale) + 1.0
