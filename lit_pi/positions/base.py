"""The interface every position strategy implements."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float32, Int
from torch import Tensor

from lit_pi.errors import UserError
from lit_pi.positions.attention_rule import AttentionRule
from lit_pi.positions.rope import Rope
from lit_pi.ranges import Stretch, Tokens, in_range


class PositionStrategy(ABC):
    """Maps token positions to rotary angles.

    A strategy holds Python numbers only. Everything it computes is float32 on the CPU (`inv_freq`) or on the
    device of the positions (`angles`), whatever the model's precision is.
    """

    @property
    def prefix_consistent(self) -> bool:
        """Whether the angles of a prefix do not depend on what follows it.

        True lets one forward pass serve every context length of an evaluation.
        """
        return True

    @abstractmethod
    def inv_freq(self, rope: Rope, context_length: int) -> Float32[Tensor, " half"]:
        """Inverse frequencies in radians a token, for a sequence of `context_length` tokens."""

    def angles(
        self, position_ids: Int[Tensor, "batch seq"], rope: Rope, context_length: int
    ) -> Float32[Tensor, "batch seq half"]:
        """Rotary angles in radians of integer positions, for a sequence of `context_length` tokens."""
        inv_freq = self.inv_freq(rope, context_length).to(position_ids.device, non_blocking=True)
        return position_ids[..., None].float() * inv_freq

    def attention_scaling(self, rope: Rope, context_length: int) -> float:
        """Factor on cosine and sine; attention scores are multiplied by its square."""
        return 1.0

    def target_context_of(self, rope: Rope) -> int:
        """Tokens of context that the strategy is made for; those of pre-training where it does not say."""
        return rope.original_context

    @property
    def attention_rule(self) -> AttentionRule | None:
        """The rule by which queries see other distances than how far keys stand before them; None without one."""
        return None

    def rope_parameters(self, rope: Rope) -> dict[str, Any]:
        """The `rope_parameters` of a transformers config that rotates the same way.

        Factors of transformers' `longrope` type unless a strategy has a type of its own there.

        Raises:
            UserError: those factors cannot say what this strategy does.
        """
        inv_freq = self.inv_freq(rope, rope.original_context)
        reasons = {
            "an attention rule of its own": self.attention_rule is not None,
            "angles that depend on the sequence's length": not self.prefix_consistent,
            "a frequency of zero": not (inv_freq > 0).all(),
        }
        for reason, holds in reasons.items():
            if holds:
                raise UserError(f"transformers has no rope type for {type(self).__name__}, which has {reason}")
        factors = rope.factors_of(inv_freq).tolist()
        return {
            "rope_type": "longrope",
            "rope_theta": rope.rope_theta,
            "factor": self.target_context_of(rope) / rope.original_context,
            "original_max_position_embeddings": rope.original_context,
            "short_factor": factors,
            "long_factor": factors,
            "attention_factor": self.attention_scaling(rope, rope.original_context),
        }

    def for_model(self, rope_parameters: Mapping[str, Any], rope: Rope) -> "PositionStrategy":
        """The strategy in effect for a model whose config has these `rope_parameters`: itself, as a rule."""
        return self

    def of_layer(self, place: int, kind: str) -> "PositionStrategy":
        """The strategy of one layer: itself, as a rule.

        Args:
            place: number of the layer, from 0 on.
            kind: its kind, as in `layer_types` of transformers' configs.
        """
        return self

    def check_layers(self, kinds: Sequence[str]) -> None:  # noqa: B027
        """Check that the strategy fits the layers of a model, as one for all of them does.

        Args:
            kinds: the kind of each layer, in order.

        Raises:
            UserError: it names layers that the model does not have.
        """

    def describe(self) -> dict[str, Any]:
        """Class name and parameters, as they go into results and checkpoints."""
        parameters = {
            name: value.describe() if isinstance(value, PositionStrategy) else value
            for name, value in vars(self).items()
        }
        return {"class": type(self).__name__, **parameters}


def prefix_agrees(position: PositionStrategy, rope: Rope, context_lengths: Sequence[int]) -> bool:
    """Whether the phases of every shorter context length are, bit for bit, a prefix of the longest one's."""
    longest = max(context_lengths)
    position_ids = torch.arange(longest)[None]
    angles = position.angles(position_ids, rope, longest)
    scaling = position.attention_scaling(rope, longest)
    return all(
        torch.equal(position.angles(position_ids[:, :length], rope, length), angles[:, :length])
        and position.attention_scaling(rope, length) == scaling
        for length in set(context_lengths) - {longest}
    )


class StretchingStrategy(PositionStrategy):
    """A strategy that stretches the pre-trained context by a factor.

    Args:
        scale: target context over original context, at least 1.
        target_context: tokens of context to reach, from which the scale follows; instead of `scale`.

    Raises:
        UserError: neither or both are given, or the scale is below 1.
    """

    @in_range
    def __init__(self, scale: Stretch | None = None, target_context: Tokens | None = None) -> None:
        name = type(self).__name__
        if (scale is None) == (target_context is None):
            raise UserError(
                f"{name} takes either `scale` or `target_context` and got "
                f"{'neither' if scale is None else 'both'}: give exactly one (the other is null)"
            )
        self.scale = scale
        self.target_context = target_context

    def scale_of(self, rope: Rope) -> float:
        """The factor s = L' / L for a model pre-trained with `rope.original_context` tokens.

        Raises:
            UserError: the target context is shorter than the original one.
        """
        if self.scale is not None:
            return self.scale
        assert self.target_context is not None
        if self.target_context < rope.original_context:
            raise UserError(
                f"{type(self).__name__} got target_context {self.target_context}, which is shorter than the "
                f"{rope.original_context} tokens the model was pre-trained with: ask for at least as many"
            )
        return self.target_context / rope.original_context

    def target_context_of(self, rope: Rope) -> int:
        """Tokens of the stretched context (L')."""
        return round(self.scale_of(rope) * rope.original_context)
