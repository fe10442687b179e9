"""Methods that change which distance a query sees, not only what an angle is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Int
from torch import Tensor


class Pass(NamedTuple):
    """Attention with positions of its own.

    Attributes:
        query_positions: where each query stands in this pass, in tokens.
        key_positions: where each key stands in this pass, in tokens.
    """

    query_positions: Int[Tensor, "batch queries"]
    key_positions: Int[Tensor, "batch keys"]


class AttentionRule(ABC):
    """Attention in several passes, merged into one softmax: each pair of query and key counts in one of them."""

    @abstractmethod
    def passes(
        self, query_positions: Int[Tensor, "batch queries"], key_positions: Int[Tensor, "batch keys"]
    ) -> Sequence[Pass]:
        """The passes, for the positions of queries and keys in the sequence (tokens)."""

    @abstractmethod
    def pass_of(
        self, query_positions: Int[Tensor, "batch queries"], key_positions: Int[Tensor, "batch keys"]
    ) -> Int[Tensor, "batch queries keys"]:
        """Which pass a pair counts in, by its index."""


def distances(
    query_positions: Int[Tensor, "batch queries"], key_positions: Int[Tensor, "batch keys"]
) -> Int[Tensor, "batch queries keys"]:
    """How many tokens each key stands before each query."""
    return query_positions[:, :, None] - key_positions[:, None, :]
