"""Documents with the hashes of their content, by which exact duplicates are known."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lit_pi.data.corpora.corpus import Document, Dropped, Duplicates, content_hash


class Hashed(NamedTuple):
    """A document and the hash of its content.

    Attributes:
        document: the document as the corpus gave it.
        digest: hash of its prompt and text, 16 bytes.
        duplicate: whether a document before it has the same content.
    """

    document: Document
    digest: bytes
    duplicate: bool


def hashed(items: Iterable[Document | Dropped], duplicates: Duplicates) -> Iterator[Hashed | Dropped]:
    """The documents with their hashes, in order; takes about 100 bytes of memory for each.

    Args:
        items: documents of a split.
        duplicates: `drop` leaves out documents whose content came before, `keep` keeps them.
    """
    seen: set[bytes] = set()
    for item in items:
        if isinstance(item, Dropped):
            yield item
            continue
        digest = content_hash(item)
        # Without text there is nothing to be a duplicate of.
        duplicate = digest in seen and bool(item.text)
        seen.add(digest)
        yield Dropped(item.id, "duplicate") if duplicate and duplicates == "drop" else Hashed(item, digest, duplicate)
