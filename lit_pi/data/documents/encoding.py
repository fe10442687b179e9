"""Documents as token ids."""

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import repeat

import numpy as np
from jinja2 import TemplateError
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from lit_pi.data.corpora.corpus import Corpus, Document, Dropped
from lit_pi.data.documents.cutting import cutter, whole
from lit_pi.data.documents.duplicates import Hashed
from lit_pi.data.store import Batch
from lit_pi.data.tokenizer import BYTES, first_tokens, load_tokenizer, plain_backend, tokenizer_fingerprint
from lit_pi.errors import UserError

Ids = NDArray[np.unsignedinteger]


class DocumentEncoder:
    """Turns documents into token ids with a copy of the tokenizer's backend, so that its settings stay its own.

    Args:
        corpus: the corpus whose limits cut documents.
        tokenizer: the tokenizer.
        dtype: dtype of the ids.
        piece_characters: text that is encoded at once, where the tokenizer allows to cut it.
    """

    def __init__(
        self, corpus: Corpus, tokenizer: PreTrainedTokenizerFast, dtype: np.dtype, piece_characters: int
    ) -> None:
        self.corpus = corpus
        self.tokenizer = tokenizer
        self.backend = plain_backend(tokenizer)
        self.chat_backend = plain_backend(tokenizer)
        self.chat_backend.encode_special_tokens = False
        self.cut = cutter(self.backend)
        self.piece_characters = piece_characters
        self.characters_at_once = float("inf") if self.cut is whole else piece_characters
        self.vocabulary_size = len(tokenizer)
        self.dtype = dtype
        self.bytes_are_ids = tokenizer_fingerprint(tokenizer) == tokenizer_fingerprint(load_tokenizer(BYTES))

    def encode(self, items: list[Hashed | Dropped]) -> Batch:
        """Token ids of the documents among the items.

        Raises:
            UserError: a token lies outside the vocabulary, or the tokenizer has no template for chats.
        """
        found = [item for item in items if isinstance(item, Hashed)]
        documents = [self._written_out(item.document) if item.document.chat else item.document for item in found]
        documents = self.corpus.limited(documents, partial(first_tokens, self.backend))
        dropped = Counter(item.reason for item in items if isinstance(item, Dropped))
        kept, tokens, prompts = [], [], []
        prompt_ids, text_ids = self._prompt_ids(documents), self._text_ids(documents)
        for item, document, prompt, text in zip(found, documents, prompt_ids, text_ids, strict=True):
            ids = np.concatenate((prompt, text)) if len(prompt) else text
            if not len(text):
                dropped["empty"] += 1
                continue
            if (largest := int(ids.max())) >= self.vocabulary_size:
                raise UserError(
                    f"document {document.id} has token {largest}, but the tokenizer's vocabulary ends at "
                    f"{self.vocabulary_size - 1}: name a tokenizer whose ids have no gaps"
                )
            kept.append(item._replace(document=document))
            tokens.append(ids.astype(self.dtype))
            prompts.append(len(prompt))
        documents = [item.document for item in kept]
        return Batch(
            ids=[document.id for document in documents],
            tokens=np.concatenate(tokens) if tokens else np.empty(0, self.dtype),
            lengths=np.array([len(ids) for ids in tokens], np.int64),
            document_bytes=np.array([len((d.prompt + d.text).encode()) for d in documents], np.int64),
            prompt_tokens=np.array(prompts, np.int64),
            sources=[document.source for document in documents],
            hashes=[item.digest for item in kept],
            dropped=dropped,
            cut=Counter(part for document in documents for part in document.cut),
            duplicates=sum(item.duplicate for item in kept),
        )

    def _written_out(self, document: Document) -> Document:
        """A chat as the tokenizer's template writes it, without `<bos>` and `<eos>` at its ends: sequences add them."""
        name = self.tokenizer.name_or_path
        if self.tokenizer.chat_template is None:
            raise UserError(
                f"document {document.id} is a chat, and the tokenizer {name} has no chat template: name one that has, "
                "or a text_field that holds text"
            )
        try:
            text = str(self.tokenizer.apply_chat_template(json.loads(document.text), tokenize=False))
        except (TemplateError, TypeError) as error:
            raise UserError(
                f"the chat template of {name} refuses document {document.id} ({error}): correct its messages"
            ) from error
        bos, eos = self.tokenizer.bos_token or "", self.tokenizer.eos_token or ""
        return document._replace(text=text.removeprefix(bos).removesuffix(eos))

    def _prompt_ids(self, documents: list[Document]) -> Iterable[Ids]:
        if any(document.prompt for document in documents):
            return self._ids([document.prompt for document in documents])
        return repeat(np.empty(0, np.uint32), len(documents))

    def _text_ids(self, documents: list[Document]) -> Iterator[Ids]:
        if not any(document.chat for document in documents):
            return self._ids([document.text for document in documents])
        together = self._encoded_together
        return (
            next(together([document.text], self.chat_backend) if document.chat else self._ids([document.text]))
            for document in documents
        )

    def _ids(self, texts: list[str]) -> Iterator[Ids]:
        if self.bytes_are_ids:
            return (np.frombuffer(text.encode(), np.uint8) for text in texts)
        if len(texts) == 1:
            pieces = self.cut(texts[0], self.piece_characters)
            encoded = [ids for piece in pieces for ids in self._encoded_together([piece], self.backend)]
            return iter([np.concatenate(encoded)])
        return self._encoded_together(texts, self.backend)

    def _encoded_together(self, texts: list[str], backend: Tokenizer) -> Iterator[Ids]:
        encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
        # Three times as fast as np.array.
        return (np.frombuffer(array("I", encoding.ids), np.uint32) for encoding in encodings)
