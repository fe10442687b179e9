"""How far what decoding reads from its cache is from a full pass, document by document."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

KIND = "decode_consistency"
"""The kind of its records in `results.json`."""
TOLERANCES = {"float64": 1e-6, "float32": 1e-3}
"""Nats by which one token may differ where only the order of sums does, by dtype of the computation."""
HALF_TOLERANCE = 0.25
"""The same for the dtypes of 16 bits, whose logits are rounded to 1/256 of their size."""


class DecodeDifference(NamedTuple):
    """Differences of the two ways of scoring a document's tokens.

    Attributes:
        document: index in the evaluation.
        tokens: scored both ways.
        max: largest absolute difference of a token, in nats; None where scores are not finite.
        mean: mean absolute difference, in nats; None where scores are not finite.
    """

    document: int
    tokens: int
    max: float | None
    mean: float | None


class DecodeDifferenceSums(Metric):
    """Sums by document, so that any number of batches and ranks give the same figures.

    Args:
        documents: how many may be scored.
    """

    full_state_update = False
    tokens: Int[Tensor, " documents"]
    largest: Float[Tensor, " documents"]
    total: Float[Tensor, " documents"]

    def __init__(self, documents: int) -> None:
        super().__init__()
        self.add_state("tokens", torch.zeros(documents, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("largest", torch.zeros(documents, dtype=torch.float64), dist_reduce_fx="max")
        self.add_state("total", torch.zeros(documents, dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self,
        documents: Int[Tensor, " batch"],
        token_nll: Float[Tensor, "batch target"],
        decoded_nll: Float[Tensor, "batch target"],
    ) -> None:
        """Add a batch.

        Args:
            documents: each row's document, -1 for a row that only fills up.
            token_nll: nats, by a full pass.
            decoded_nll: nats, token by token with a cache.
        """
        real = documents >= 0
        rows, difference = documents[real], (decoded_nll.double() - token_nll.double())[real].abs()
        self.tokens.index_add_(0, rows, torch.full_like(rows, difference.shape[1]))
        self.largest.index_copy_(0, rows, difference.amax(dim=1))
        self.total.index_add_(0, rows, difference.sum(dim=1))

    def compute(self) -> list[DecodeDifference]:
        """The documents that were scored."""
        states = zip(self.tokens.tolist(), self.largest.tolist(), self.total.tolist(), strict=True)
        return [
            DecodeDifference(index, tokens, _finite(largest), _finite(total / tokens))
            for index, (tokens, largest, total) in enumerate(states)
            if tokens
        ]


def overall(differences: list[DecodeDifference]) -> DecodeDifference:
    """All documents as one, its index -1."""
    tokens = sum(entry.tokens for entry in differences)
    largest = [entry.max for entry in differences if entry.max is not None]
    totals = [entry.mean * entry.tokens for entry in differences if entry.mean is not None]
    if len(totals) < len(differences):
        return DecodeDifference(-1, tokens, None, None)
    return DecodeDifference(-1, tokens, max(largest), sum(totals) / tokens)


def tolerance_of(dtype: str) -> float:
    """Nats by which one token may differ in a computation of this dtype."""
    return TOLERANCES.get(dtype, HALF_TOLERANCE)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
