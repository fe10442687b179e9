"""Documents joined into one, as protocols that read a corpus as one long text have it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from lit_pi.data.store import TokenStore
from lit_pi.errors import UserError


class JoinedDocuments(TokenStore):
    """A store of one document in memory, made of several of another store.

    Args:
        manifest: that of the other store.
        name: the one document's id.
        tokens: its token ids.
        num_bytes: UTF-8 bytes of its text.
    """

    def __init__(
        self, manifest: dict[str, Any], name: str, tokens: NDArray[np.unsignedinteger], num_bytes: int
    ) -> None:
        self.manifest = manifest
        self.name = name
        self.tokens = tokens
        self.offsets = np.array([0, len(tokens)], np.int64)
        self.document_bytes = np.array([num_bytes], np.int64)
        self.prompt_tokens = np.zeros(1, np.int64)

    def __reduce__(self) -> Any:
        return type(self), (self.manifest, self.name, self.tokens, int(self.document_bytes[0]))

    def document_id(self, index: int) -> str:
        """Return the name of the one document."""
        return self.name


def join_tokens(store: TokenStore, documents: NDArray[np.int64], tokenizer: PreTrainedTokenizerFast) -> JoinedDocuments:
    """Put the tokens of documents one after another, with nothing between them."""
    tokens = np.concatenate([store.document(index) for index in documents.tolist()])
    return JoinedDocuments(store.manifest, _name(documents), tokens, int(store.document_bytes[documents].sum()))


def join_texts(
    store: TokenStore,
    documents: NDArray[np.int64],
    tokenizer: PreTrainedTokenizerFast,
    separator: str,
    special_tokens: bool,
) -> JoinedDocuments:
    """Join the texts of documents, and encode what they make.

    Args:
        store: holds the documents.
        documents: indices in the store.
        tokenizer: the one that the store was built with.
        separator: stands between two texts.
        special_tokens: whether the tokenizer adds those that it adds by itself.

    Raises:
        UserError: a document's tokens do not spell its text.
    """
    texts = []
    for index in documents.tolist():
        text = str(tokenizer.decode(store.document(index).tolist(), clean_up_tokenization_spaces=False))
        if len(text.encode()) != store.document_bytes[index]:
            raise UserError(
                f"the tokens of {store.document_id(index)} do not spell its text, which the protocol joins with "
                "others: choose a protocol that does not, or another tokenizer"
            )
        texts.append(text)
    text = separator.join(texts)
    encoded = tokenizer(text, add_special_tokens=special_tokens, verbose=False)["input_ids"]
    return JoinedDocuments(store.manifest, _name(documents), np.array(encoded, np.uint32), len(text.encode()))


def _name(documents: NDArray[np.int64]) -> str:
    return f"{len(documents)} documents, joined"
