"""The base class of corpora, and the documents that they give."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

Split = Literal["train", "validation", "test"]
Duplicates = Literal["drop", "keep"]
FirstTokens = Callable[[Sequence[str], int], list[str]]
"""Texts, and how many tokens stay of each at most: what the tokenizer at hand makes of a limit."""
HASH_BYTES = 16
"""Bytes of a document's hash."""


class Document(NamedTuple):
    """One text.

    Attributes:
        id: name by which a person recognises it: a relative path, or `file:line`.
        text: its whole text.
        source: the part of the corpus it comes from, where the corpus has named parts.
        prompt: text that stands before it and is read but not learnt.
        cut: names of its parts that lost tokens to a limit of the corpus.
        chat: whether `text` is a JSON list of messages (`role`, `content`), which the tokenizer's template writes out.
    """

    id: str
    text: str
    source: str = ""
    prompt: str = ""
    cut: tuple[str, ...] = ()
    chat: bool = False


class Dropped(NamedTuple):
    """A document that is left out; the token store counts it under its reason.

    Attributes:
        id: name by which a person recognises it.
        reason: why it is left out, in a few words that many documents may share.
    """

    id: str
    reason: str


class Corpus(ABC):
    """A collection of documents in up to three splits."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name, made of letters, digits, `_` and `-`: part of the names of directories and results."""

    @property
    def weights(self) -> Mapping[str, float] | None:
        """For each source, how many training sequences are drawn from it in relation to the others.

        None where sequences are drawn from all documents alike.
        """
        return None

    @property
    def duplicates(self) -> Duplicates:
        """Whether documents whose content came before are left out (`drop`) or kept (`keep`); they are counted."""
        return "drop"

    @property
    def chats(self) -> bool:
        """Whether documents may be chats, so that their tokens depend on the tokenizer's template."""
        return False

    @abstractmethod
    def documents(self, split: Split) -> Iterator[Document | Dropped]:
        """The documents of a split, one at a time and always in the same order.

        Raises:
            UserError: the split is missing, or a document cannot be read.
        """

    def origin(self, split: Split) -> dict[str, Any]:
        """The present version of what lies elsewhere, as plain JSON, for the manifest; asked when a build begins.

        A build that was killed continues only where it is still the same. Empty by default.
        """
        return {}

    def limited(self, documents: list[Document], first_tokens: FirstTokens) -> list[Document]:
        """Cut documents to the tokens that the corpus allows; by default they stay as they are.

        Args:
            documents: some of the corpus.
            first_tokens: cuts texts to a number of tokens.
        """
        return documents

    @abstractmethod
    def fingerprint(self, split: Split) -> dict[str, Any]:
        """Everything that the documents of a split depend on, as plain JSON: it changes when they do.

        Cheap: paths, sizes, times and options, never the documents themselves.

        Raises:
            UserError: the split is missing.
        """


def content_hash(document: Document) -> bytes:
    """SHA-256 of a document's prompt and text, its first 16 bytes: documents of one content share it."""
    return hashlib.sha256((document.prompt + document.text).encode(errors="surrogatepass")).digest()[:HASH_BYTES]


def split_by_hash(digest: bytes, held_out: float) -> Split:
    """The split that a hash puts a document into, the same one on every machine.

    Args:
        digest: hash of the document's content or name, of 8 bytes or more.
        held_out: share of the documents in `validation`, and again in `test`.
    """
    place = int.from_bytes(digest[:8]) / 2**64
    if place < held_out:
        return "test"
    return "validation" if place < 2 * held_out else "train"


def describe_files(files: Mapping[str, Path]) -> dict[str, Any]:
    """Count, bytes and a digest of the ids, sizes and modification times of files, in their order."""
    digest, size = hashlib.sha256(), 0
    for name, path in files.items():
        status = path.stat()
        size += status.st_size
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return {"files": len(files), "bytes": size, "listing": digest.hexdigest()[:16]}
