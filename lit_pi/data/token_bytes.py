"""Bytes of the text (UTF-8) that each token stands for."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from lit_pi.data.store import TokenStore

METASPACE = "▁"
"""The character that SentencePiece writes for a space."""
BYTE_LEVEL_SPACE = "Ġ"
"""The character that byte-level tokenizers write for a space."""
BYTE_TOKENS = {f"<0x{byte:02X}>" for byte in range(256)}
"""Tokens of SentencePiece that stand for one byte each."""


def vocabulary_bytes(tokenizer: PreTrainedTokenizerFast) -> NDArray[np.int64]:
    """UTF-8 bytes of every token, by its id.

    A byte-level tokenizer writes one character for a byte, SentencePiece `▁` for a space and `<0x0A>` for a byte that
    it has no other token for.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    kinds = {entry["type"] for part in ("pre_tokenizer", "decoder") for entry in _nested(backend[part])}
    byte_level, byte_fallback = "ByteLevel" in kinds, "ByteFallback" in kinds
    sizes = np.zeros(len(tokenizer), np.int64)
    for token, index in tokenizer.get_vocab().items():
        if index >= len(sizes):
            continue
        if byte_fallback and token in BYTE_TOKENS:
            sizes[index] = 1
        elif byte_level:
            sizes[index] = len(token)
        else:
            sizes[index] = len(token.replace(METASPACE, " ").encode())
    for index, added in tokenizer.added_tokens_decoder.items():
        if index < len(sizes):
            sizes[index] = len(added.content.encode())
    return sizes


class TokenBytes:
    """Bytes of the tokens of documents, checked against each document's text.

    Args:
        store: the store that holds the documents.
        tokenizer: the tokenizer that the store was built with.
    """

    def __init__(self, store: TokenStore, tokenizer: PreTrainedTokenizerFast) -> None:
        self._store = store
        self._sizes = vocabulary_bytes(tokenizer)
        spaces = [index for token, index in tokenizer.get_vocab().items() if token[:1] in (METASPACE, BYTE_LEVEL_SPACE)]
        self._unknown = tokenizer.unk_token_id
        self._begins_with_space = np.zeros(len(self._sizes), bool)
        self._begins_with_space[[index for index in spaces if index < len(self._sizes)]] = True

    def of(self, document: int) -> NDArray[np.int64] | None:
        """Bytes of each token of a document, or None where they do not add up to those of its text.

        A space that the tokenizer put before the prompt or the text is no part of them.

        Args:
            document: index of the document in the store.
        """
        tokens = self._store.document(document)
        if self._unknown is not None and (tokens == self._unknown).any():
            return None
        sizes = self._sizes[tokens]
        excess = int(sizes.sum()) - int(self._store.document_bytes[document])
        starts = {0, int(self._store.prompt_tokens[document])} - {len(tokens)}
        prefixed = [start for start in starts if self._begins_with_space[tokens[start]]]
        if excess == len(prefixed):
            sizes[prefixed] -= 1
        elif excess:
            return None
        return sizes


def _nested(part: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """The steps of a sequence, or the one step there is."""
    if part is None:
        return
    yield part
    for key in ("pretokenizers", "decoders", "normalizers"):
        for step in part.get(key, ()):
            yield from _nested(step)
