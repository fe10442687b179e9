"""The two kinds of batch: token ids to learn from, and token ids to score."""

from typing import NamedTuple

from jaxtyping import Int
from torch import Tensor

IGNORE = -100
"""Target of a position that neither trains nor scores (torch's `ignore_index`)."""


class TrainingBatch(NamedTuple):
    """Sequences of one length, every target predicted from the positions up to its own.

    Attributes:
        input_ids: token ids.
        targets: the token that follows each position, or `IGNORE`.
        position_ids: place of each token in its document's piece, in tokens.
        document_ids: who may attend to whom (equal ids only), or None where each row is one document.
    """

    input_ids: Int[Tensor, "batch seq"]
    targets: Int[Tensor, "batch seq"]
    position_ids: Int[Tensor, "batch seq"]
    document_ids: Int[Tensor, "batch seq"] | None


class Span(NamedTuple):
    """The slice `[start, stop)` of a batch's scored positions that belongs to one context length (tokens)."""

    context_length: int
    start: int
    stop: int


class ScoringBatch(NamedTuple):
    """Windows of one padded length that share their scored positions.

    Attributes:
        evaluation: name of the evaluation the scores belong to.
        input_ids: token ids, right-padded (exact under a causal mask).
        lengths: positions of each row that are not padding.
        scored: positions whose next token is scored, ascending.
        targets: the token that follows each scored position, or `IGNORE`.
        spans: which scored positions belong to which context length. A span of context length L is what a
            window cut to its first L positions scores.
        documents: index of each row's document in the evaluation, -1 for a row that only tops up the batch.
        begins: index in the document of each row's first token.
        ranked: whether the targets' ranks are wanted too.
    """

    evaluation: str
    input_ids: Int[Tensor, "batch seq"]
    lengths: Int[Tensor, " batch"]
    scored: Int[Tensor, " scored"]
    targets: Int[Tensor, "batch scored"]
    spans: tuple[Span, ...]
    documents: Int[Tensor, " batch"]
    begins: Int[Tensor, " batch"]
    ranked: bool = False
