"""Who may attend to whom: transformers says what a layer's kind sees, and a forward says which tokens it is given."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache
from types import FunctionType
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers.masking_utils import causal_mask_function, sliding_window_overlay

Form = Literal["matrix", "local", "blocks", "lengths"]
"""Forms of masks: a matrix; a matrix, but a `Window` where that is less work; FlexAttention's blocks; `Lengths`."""

MaskFunction = Callable[[Any, Any, Any, Any], Any]
"""Whether a query sees a key, given batch, head, query and key: transformers' description of a layer's kind."""

BLOCK = 128
"""Queries and keys of a block of FlexAttention's."""


class Window(NamedTuple):
    """A mask that is not written out: each token sees the last ones before it, itself included, and nobody else.

    Attributes:
        tokens: how many it sees.
    """

    tokens: int


class Lengths(NamedTuple):
    """A mask that is not written out: documents, one after the other over all rows, and what a token sees of its own.

    Attributes:
        starts: index of each document's first token in the rows laid end to end, and the number of tokens; int32.
        longest: tokens of the longest document, or more.
        window: how many of the last tokens each sees, itself included; None for all.
    """

    starts: Int[Tensor, " documents_and_one"]
    longest: int
    window: int | None

    def hides_only_what_follows(self, rows: int) -> bool:
        """Whether each of so many rows is one document, and has no window."""
        return self.window is None and len(self.starts) == rows + 1


Mask = Tensor | BlockMask | Window | Lengths


class Tokens(NamedTuple):
    """The tokens of a forward, of which a layer's kind says who sees whom.

    Attributes:
        form: how masks are written.
        document_ids: tokens see equal ids only; None where each row is one document.
        places: where keys stand in their rows, in tokens; None where they stand one after the other.
        queries: index among the keys of each query, ascending; None where queries are the last keys.
        keys: how many there are, where queries are given.
        ring: leave out a mask that only hides what follows, where queries are given too.
        everywhere: write such a mask even where queries are the last keys, though kernels do that by themselves.
    """

    form: Form = "matrix"
    document_ids: Int[Tensor, "batch keys"] | None = None
    places: Int[Tensor, "batch keys"] | None = None
    queries: Int[Tensor, " queries"] | None = None
    keys: int | None = None
    ring: bool = False
    everywhere: bool = False


_ANY = Tokens()
_AT_HAND: ContextVar[Tokens] = ContextVar("tokens", default=_ANY)


@contextmanager
def masks_for(tokens: Tokens) -> Iterator[None]:
    """Let the masks that transformers asks for be those of these tokens."""
    before = _AT_HAND.set(tokens)
    try:
        yield
    finally:
        _AT_HAND.reset(before)


def make_mask(
    *,
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    mask_function: MaskFunction = causal_mask_function,
    device: torch.device,
    **kwargs: Any,
) -> Mask | None:
    """The mask of a layer's kind for the tokens at hand, or None where each sees all before it.

    transformers calls this for each kind of layer of a model, before its first layer.

    Args:
        batch_size: rows.
        q_length: tokens of each row that attend.
        kv_length: tokens of each row that are seen, those of earlier forwards included.
        q_offset: index of the first query among the keys.
        mask_function: who sees whom in a row of one document, by index.
        device: where the model runs.
        kwargs: further arguments that transformers passes, which are not used.
    """
    tokens = _AT_HAND.get()
    kv_length = tokens.keys or kv_length
    window = window_of(mask_function)
    if window is not None and window >= kv_length:
        mask_function, window = causal_mask_function, None
    causal = mask_function is causal_mask_function
    if tokens.queries is not None:
        if causal and tokens.ring:
            return None
        return _written(mask_function, tokens, tokens.queries, batch_size, kv_length)
    one_after_the_other = tokens.document_ids is None and tokens.places is None
    if one_after_the_other and (q_offset == 0 or q_length == 1) and causal and not tokens.everywhere:
        return None
    if q_offset == 0 and tokens.places is None and (causal or window is not None):
        if tokens.form == "lengths":
            return _lengths(tokens.document_ids, batch_size, kv_length, window, device)
        if one_after_the_other and tokens.form == "local" and window is not None and kv_length > 2 * window:
            return Window(window)
        if one_after_the_other and tokens.form == "blocks" and q_length >= BLOCK:
            return _same_blocks(window, q_length, device)
    queries = torch.arange(q_offset, q_offset + q_length, device=device)
    return _written(mask_function, tokens, queries, batch_size, kv_length)


def _written(
    mask_function: MaskFunction, tokens: Tokens, queries: Int[Tensor, " queries"], rows: int, keys: int
) -> Bool[Tensor, "rows 1 queries keys"] | BlockMask:
    sees, device = _sees(mask_function, tokens), queries.device
    differ = tokens.document_ids is not None or tokens.places is not None
    # For fewer queries than a block, FlexAttention takes its kernel for decoding, which cannot learn.
    if tokens.form == "blocks" and len(queries) >= BLOCK:

        def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return sees(batch, head, queries[query], key)

        create = compiled_on(device.type, create_block_mask)
        return create(visible, rows if differ else None, None, len(queries), keys, device=device, BLOCK_SIZE=BLOCK)
    batch = torch.arange(rows if differ else 1, device=device)[:, None, None, None]
    seen = sees(batch, batch, queries[:, None], torch.arange(keys, device=device))
    return seen.expand(len(batch), 1, len(queries), keys)


def window_of(mask_function: MaskFunction) -> int | None:
    """The window of transformers' sliding mask function; None of another one, which is then asked pair by pair."""
    parts = _closed_over(mask_function).get("mask_functions")
    if not isinstance(parts, tuple) or len(parts) != 2 or parts[1] is not causal_mask_function:
        return None
    if getattr(parts[0], "__code__", None) is not sliding_window_overlay(1).__code__:
        return None
    return int(_closed_over(parts[0])["sliding_window"])


def _closed_over(function: Any) -> dict[str, Any]:
    if not isinstance(function, FunctionType) or function.__closure__ is None:
        return {}
    contents = (cell.cell_contents for cell in function.__closure__)
    return dict(zip(function.__code__.co_freevars, contents, strict=True))


def _sees(mask_function: MaskFunction, tokens: Tokens) -> MaskFunction:
    """Whether a query sees a key of its document, given their indices among the keys."""
    ids, places = tokens.document_ids, tokens.places
    if ids is not None:
        ids = ids.int()  # read by kernels for every pair of a block at a document's edge
        if places is None and mask_function is not causal_mask_function and window_of(mask_function) is None:
            places = _places(ids)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = (
            mask_function(batch, head, query, key)
            if places is None
            else mask_function(batch, head, places[batch, query], places[batch, key])
        )
        return seen if ids is None else seen & (ids[batch, query] == ids[batch, key])

    return sees


def _places(document_ids: Int[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
    """Where tokens stand in their documents."""
    index = torch.arange(document_ids.shape[1], device=document_ids.device)
    starts = torch.ones_like(document_ids, dtype=torch.bool)
    starts[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    return index - (index * starts).cummax(dim=1).values


@lru_cache(maxsize=16)
def _same_blocks(window: int | None, seq: int, device: torch.device) -> BlockMask:
    """The blocks of rows of one document, which are the same in every step."""

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return query >= key if window is None else (query >= key) & (query - key < window)

    create = compiled_on(device.type, create_block_mask)
    return create(visible, None, None, seq, seq, device=device, BLOCK_SIZE=BLOCK)


def _lengths(
    document_ids: Int[Tensor, "batch seq"] | None, rows: int, seq: int, window: int | None, device: torch.device
) -> Lengths:
    total = rows * seq
    if document_ids is None:
        return Lengths(torch.arange(0, total + 1, seq, dtype=torch.int32, device=device), seq, window)
    first = torch.ones_like(document_ids, dtype=torch.bool)
    first[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    starts = first.flatten().nonzero()[:, 0]
    return Lengths(torch.cat((starts, starts.new_tensor([total]))).int(), seq, window)


def compiled_on(device: str, function: Any) -> Any:
    """FlexAttention's function as the device needs it: compiled on a GPU, unless the caller is being compiled."""
    return function if device != "cuda" or torch.compiler.is_compiling() else _compiled(function)


@cache
def _compiled(function: Any) -> Any:
    # Shared by all layers. Without `fullgraph`, exceeding Dynamo's limit of variants would silently run FlexAttention
    # uncompiled, which holds all scores in memory.
    return torch.compile(function, dynamic=False, fullgraph=True)
