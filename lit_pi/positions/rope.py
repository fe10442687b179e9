"""The rotary position embedding that a model was pre-trained with."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float32
from torch import Tensor


class Rope(NamedTuple):
    """The rotary embedding of pre-training, before any extension.

    Attributes:
        head_dim: rotated dimensions of an attention head.
        rope_theta: the base c of the frequencies c^(-2j/d).
        original_context: tokens of context the model was pre-trained with (L).
        kinds: by name, kinds of layers with an embedding of their own; the one here is that of all others.
        assumed: whether nobody said the original context, and it is only what the model's config suggests.
    """

    head_dim: int
    rope_theta: float
    original_context: int
    kinds: tuple[tuple[str, "Rope"], ...] = ()
    assumed: bool = False

    def __repr__(self) -> str:
        """The numbers, and kinds only where there are any."""
        return f"Rope({', '.join(f'{name}={value}' for name, value in self.describe().items())})"

    def of_kind(self, kind: str) -> "Rope":
        """The embedding of a kind of layer."""
        return dict(self.kinds).get(kind, self._replace(kinds=()))

    def describe(self) -> dict[str, Any]:
        """The numbers, as they go into results and checkpoints."""
        numbers = {**self._asdict(), "kinds": {name: rope.describe() for name, rope in self.kinds}}
        return {name: value for name, value in numbers.items() if value or name not in self._field_defaults}

    def told(self, original_context: int | None) -> "Rope":
        """The same with the original context that somebody says, where it was only assumed."""
        if original_context is None or not self.assumed:
            return self
        kinds = tuple((name, rope.told(original_context)) for name, rope in self.kinds)
        return self._replace(original_context=original_context, kinds=kinds, assumed=False)

    @classmethod
    def described(cls, numbers: Mapping[str, Any]) -> "Rope":
        """The embedding that `describe` gave these numbers of."""
        kinds = tuple((name, cls.described(rope)) for name, rope in numbers.get("kinds", {}).items())
        return cls(**{**numbers, "kinds": kinds})

    def inv_freq(self, count: int | None = None) -> Float32[Tensor, " half"]:
        """Frequencies theta_j = rope_theta^(-2j / head_dim) in radians a token (RoFormer, section 3.2.2).

        Args:
            count: how many of them, from the highest on; all by default.
        """
        return 1.0 / self.tokens_per_radian(count)

    def tokens_per_radian(self, count: int | None = None) -> Float32[Tensor, " half"]:
        """Their reciprocals, computed first, as transformers does: both agree to the bit."""
        end = self.head_dim if count is None else 2 * count
        exponents = torch.arange(0, end, 2, dtype=torch.float32) / self.head_dim
        return self.rope_theta**exponents

    def divided_by(self, factors: Float32[Tensor, "*sets half"]) -> Float32[Tensor, "*sets half"]:
        """Frequencies divided by factors, in the order of transformers' `longrope` type, to the bit."""
        return 1.0 / (factors * self.tokens_per_radian())

    def factors_of(self, inv_freq: Float32[Tensor, " half"]) -> Float32[Tensor, " half"]:
        """Factors by which frequencies are divided to give `inv_freq`, or what is nearest to it in float32."""
        factors = (1 / (inv_freq.double() * self.tokens_per_radian().double())).float()
        # Rounded in three places: of the numbers beside each factor one may do better.
        nearby = (factors.view(torch.int32) + torch.arange(-4, 5, dtype=torch.int32)[:, None]).view(torch.float32)
        missed = (self.divided_by(nearby) - inv_freq).abs().nan_to_num(float("inf"))
        return nearby.gather(0, missed.argmin(dim=0, keepdim=True))[0]
