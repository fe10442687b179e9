"""The kinds of batch: token ids to learn from, to score, and to continue; what continues them; and their digests."""

from typing import Literal, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor
from zlib_ng.zlib_ng import crc32

IGNORE = -100
"""Target of a position that neither trains nor scores (torch's `ignore_index`)."""


class TrainingBatch(NamedTuple):
    """Sequences of one length, every target predicted from the positions up to its own.

    Attributes:
        input_ids: token ids.
        targets: the token that follows each position, or `IGNORE`.
        position_ids: place of each token in its document's piece, in tokens.
        document_ids: who may attend to whom (equal ids only), or None where each row is one document.
        digest: number that tells its tokens from others (`digested`).
    """

    input_ids: Int[Tensor, "batch seq"]
    targets: Int[Tensor, "batch seq"]
    position_ids: Int[Tensor, "batch seq"]
    document_ids: Int[Tensor, "batch seq"] | None
    digest: int = 0


Scheme = Literal["sliding", "disjoint"]


class Span(NamedTuple):
    """The slice `[start, stop)` of a batch's scored positions that belongs to one context length (tokens).

    The same tokens may be scored in windows that overlap (`sliding`) and in others that do not (`disjoint`).
    """

    context_length: int
    start: int
    stop: int
    scheme: Scheme = "sliding"


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
        begins: index in the document of what stands at each row's position 0; one less than its first token's where
            that is `<bos>`.
        ranked: whether the targets' ranks are wanted too.
        digest: number that tells its windows from others (`digested`).
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
    digest: int = 0


class Decoding(NamedTuple):
    """The choice of the next token, and when to stop.

    Attributes:
        max_new_tokens: tokens to generate at most.
        temperature: divides the logits; 0 takes the most likely token.
        top_p: samples from the fewest tokens whose probabilities sum to at least this (Holtzman et al. 2020).
        stop_ids: tokens that end a text.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop_ids: tuple[int, ...] = ()


class GenerationBatch(NamedTuple):
    """Prompts to continue.

    Attributes:
        evaluation: name of the evaluation the texts belong to.
        input_ids: token ids, right-padded.
        lengths: tokens of each prompt.
        context_lengths: tokens that each row's positions stand for: prompt and new ones.
        documents: index of each row's sample in the evaluation, -1 for a row that only tops up the batch.
        decoding: how to continue.
        draws: a number from 0 to 1 for each new token, which chooses it where tokens are sampled: what a row becomes
            depends neither on its batch nor on its rank. None where they are not sampled.
        targets: the right continuation, `IGNORE` after its end, or None where none is.
        digest: number that tells its prompts from others (`digested`).
    """

    evaluation: str
    input_ids: Int[Tensor, "batch prompt"]
    lengths: Int[Tensor, " batch"]
    context_lengths: Int[Tensor, " batch"]
    documents: Int[Tensor, " batch"]
    decoding: Decoding
    draws: Float[Tensor, "batch new"] | None = None
    targets: Int[Tensor, "batch target"] | None = None
    digest: int = 0


class Generated(NamedTuple):
    """Texts that continue the prompts of a batch.

    Attributes:
        token_ids: up to `max_new_tokens` tokens, 0 after a text's end.
        lengths: tokens of each text, without the one that ended it.
        stopped: whether a token of `stop_ids` ended it.
    """

    token_ids: Int[Tensor, "batch new"]
    lengths: Int[Tensor, " batch"]
    stopped: Bool[Tensor, " batch"]


MODULUS = 2**64
"""Digests are added up modulo this, so that parts come in any order."""

Batch = TypeVar("Batch", TrainingBatch, ScoringBatch, GenerationBatch)


def digested(batch: Batch) -> Batch:
    """A batch in the CPU's memory that carries the digest of its tokens; rows that only top it up do not count."""
    if isinstance(batch, TrainingBatch):
        return batch._replace(digest=sum(_of(row) for row in batch.input_ids) % MODULUS)
    begins = batch.begins if isinstance(batch, ScoringBatch) else batch.context_lengths
    rows = zip(batch.input_ids, batch.lengths.tolist(), batch.documents.tolist(), begins.tolist(), strict=True)
    digests = [_of(row[:length], document, begin) for row, length, document, begin in rows if document >= 0]
    return batch._replace(digest=sum(digests) % MODULUS)


def at_step(digest: int, step: int) -> int:
    """A digest that counts as that of a step, so that the same tokens in another order come to another sum."""
    return digest * (2 * step + 1) % MODULUS


def signed(digest: int) -> int:
    """A digest as int64 holds it: adding those up wraps around as it should."""
    digest %= MODULUS
    return digest - MODULUS if digest >= MODULUS // 2 else digest


def written(digest: int) -> str:
    """A digest as files have it."""
    return f"{digest % MODULUS:016x}"


def _of(row: Tensor, *numbers: int) -> int:
    return crc32(row.contiguous().numpy().data, crc32(np.array(numbers, np.int64).data)) + 1
