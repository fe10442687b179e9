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
        """Index of the pass in which each pair of query and key counts."""


def distances(
    query_positions: Int[Tensor, "batch queries"], key_positions: Int[Tensor, "batch keys"]
) -> Int[Tensor, "batch queries keys"]:
    """Distance in tokens from each key to the query after it; negative where the key comes later."""
    return query_positions[:, :, None] - key_positions[:, None, :]
