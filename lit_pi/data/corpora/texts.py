"""Documents that are strings of the process."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from lit_pi.data.corpora.corpus import Corpus, Document, Duplicates, Split
from lit_pi.errors import UserError


class Texts(Corpus):
    """Texts in memory, each one a document, also where two are the same; every split holds all of them.

    Args:
        texts: the documents.

    Raises:
        UserError: one is no string.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise UserError(f"text {number} is a {type(text).__name__}: give a list of strings")
        self.texts = list(texts)

    @property
    def name(self) -> str:
        """`texts`."""
        return "texts"

    @property
    def duplicates(self) -> Duplicates:
        """`keep`: who gives a text twice wants it twice."""
        return "keep"

    def documents(self, split: Split) -> Iterator[Document]:
        """The texts, by their place in the list."""
        for number, text in enumerate(self.texts):
            yield Document(str(number), text)

    def fingerprint(self, split: Split) -> dict[str, Any]:
        """A digest of the texts themselves: nothing else says which they are."""
        digest = hashlib.sha256(json.dumps(self.texts).encode()).hexdigest()
        return {"texts": len(self.texts), "digest": digest}
