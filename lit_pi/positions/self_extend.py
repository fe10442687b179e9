"""Self-Extend: near keys at their distance, far keys in groups."""

from jaxtyping import Float32, Int
from torch import Tensor

from lit_pi.positions.attention_rule import AttentionRule, Pass, distances
from lit_pi.positions.base import PositionStrategy
from lit_pi.positions.rope import Rope
from lit_pi.ranges import Count, Tokens, in_range


class SelfExtend(PositionStrategy):
    """Keys nearer than w at their distance, others at m // G - n // G + w - w // G (Jin et al. 2024, arXiv 2401.01325).

    Section 3.2, equations 3 and 4; no training. A model of original context L reaches (L - w) G + w tokens before a
    distance occurs that it has not seen. Where G does not divide w, w / G is rounded down as in the paper; some of the
    authors' code leaves it a fraction.

    Args:
        group_size: neighbouring far tokens that share a position (G).
        window: distances below this many tokens stay exact (w).

    Raises:
        UserError: the group size or the window is not positive.
    """

    @in_range
    def __init__(self, group_size: Count = 8, window: Tokens = 1024) -> None:
        self.group_size = group_size
        self.window = window

    @property
    def attention_rule(self) -> AttentionRule:
        """Two passes, near and far."""
        return GroupedAttention(self.group_size, self.window)

    def inv_freq(self, rope: Rope, context_length: int) -> Float32[Tensor, " half"]:
        """Frequencies of pre-training."""
        return rope.inv_freq()


class GroupedAttention(AttentionRule):
    """Exact distances below the window, floor-divided positions from there on.

    Args:
        group_size: how many neighbouring far tokens share a position.
        window: distance in tokens below which positions stay exact.
    """

    def __init__(self, group_size: int, window: int) -> None:
        self.group_size = group_size
        self.window = window

    def passes(
        self, query_positions: Int[Tensor, "batch queries"], key_positions: Int[Tensor, "batch keys"]
    ) -> tuple[Pass, Pass]:
        """Near: positions themselves. Far: groups, the queries shifted to meet the window's end."""
        shift = self.window - self.window // self.group_size
        far = Pass(query_positions // self.group_size + shift, key_positions // self.group_size)
        return Pass(query_positions, key_positions), far

    def pass_of(
        self, query_positions: Int[Tensor, "batch queries"], key_positions: Int[Tensor, "batch keys"]
    ) -> Int[Tensor, "batch queries keys"]:
        """0 below the window, 1 from there on."""
        return (distances(query_positions, key_positions) >= self.window).long()
