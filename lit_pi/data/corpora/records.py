"""Documents that are made of records: the text of each, its source, and what is left out."""

import json
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from lit_pi.data.corpora.corpus import Corpus, Document, Dropped, Duplicates, Split, content_hash, split_by_hash
from lit_pi.data.corpora.readers import Reading, Record, Undecodable
from lit_pi.errors import UserError
from lit_pi.ranges import Range

Value = str | int | float | bool
Found = Record | Undecodable | Dropped
HELD_OUT = Range(0, 0.5, below=True)
"""Shares of the documents that `validation` and `test` may each take."""
PLAIN_TEXT = "text"
"""The field that holds text in nearly all datasets, and never chats."""


class Choice(NamedTuple):
    """Which records become documents, and of what.

    Attributes:
        held_out: share of the documents that a hash of their content puts into `validation`, and again into `test`.
        text_field: path of the text, or of chat messages.
        source_field: path of the name of a document's source.
        weights: for each source, how many training sequences are drawn from it in relation to the others.
        where: values that fields must have, by their paths.
        min_bytes: the least UTF-8 bytes of a document.
        undecodable: what happens to text that is not valid Unicode.
        nulls: what happens to a record whose text is null.
        duplicates: what happens to a document whose text came before.
    """

    held_out: float = 0.0
    text_field: str = PLAIN_TEXT
    source_field: str | None = None
    weights: dict[str, float] | None = None
    where: dict[str, Value | list[Value]] | None = None
    min_bytes: int = 0
    undecodable: Literal["stop", "drop", "replace"] = "stop"
    nulls: Literal["stop", "drop"] = "stop"
    duplicates: Duplicates = "drop"


class RecordCorpus(Corpus):
    """A corpus whose documents are fields of records.

    Args:
        choice: which records become documents, and of what.
        encodings: encodings of plain text, tried in order.

    Raises:
        UserError: an option is out of its range.
    """

    def __init__(self, choice: Choice, encodings: list[str] | None = None) -> None:
        weights = choice.weights
        HELD_OUT.check(f"held_out of {type(self).__name__}", choice.held_out)
        Range(0).check(f"min_bytes of {type(self).__name__}", choice.min_bytes)
        if weights is not None and (min(weights.values(), default=0) < 0 or not sum(weights.values()) > 0):
            raise UserError(f"weights are {weights}: none may be negative, and one must be positive")
        self.choice = choice
        self.encodings = encodings or ["utf-8"]
        for encoding in self.encodings:
            _check_encoding(encoding)

    @property
    def weights(self) -> Mapping[str, float] | None:
        """The weights as they were given."""
        return self.choice.weights

    @property
    def duplicates(self) -> Duplicates:
        """The choice that was given."""
        return self.choice.duplicates

    @property
    def chats(self) -> bool:
        """Whether the text is in a field of another name than `text`."""
        return self.choice.text_field != PLAIN_TEXT

    @abstractmethod
    def records(self, split: Split) -> Iterator[tuple[str, Found]]:
        """The records of which a split is made, or of all splits where a hash makes them, each with its source."""

    def documents(self, split: Split) -> Iterator[Document | Dropped]:
        """The documents of a split; where a hash makes the splits, all that is left out is counted in `train`."""
        for source, record in self.records(split):
            document = record if isinstance(record, Dropped) else self._document(record, source)
            if not self.choice.held_out or self._split_of(document) == split:
                yield document

    def options(self, split: Split) -> dict[str, Any]:
        """The options on which the documents of a split depend, as plain JSON."""
        options = self.choice._asdict() | {"encodings": self.encodings}
        del options["weights"]
        return options | ({"hashed": split} if self.choice.held_out else {})

    def _split_of(self, document: Document | Dropped) -> Split:
        if isinstance(document, Dropped):
            return "train"
        return split_by_hash(content_hash(document), self.choice.held_out)

    def _document(self, record: Record | Undecodable, source: str) -> Document | Dropped:
        if isinstance(record, Undecodable):
            return self._undecodable(record)
        for path, wanted in (self.choice.where or {}).items():
            if self._field(record, path) not in (wanted if isinstance(wanted, list) else [wanted]):
                return Dropped(record.id, f"another {path}")
        if self.choice.source_field is not None:
            source = str(self._field(record, self.choice.source_field))
        if self._field(record, self.choice.text_field) is None and self._has(record, self.choice.text_field):
            return self._null(record)
        document = self._read(record, source)
        try:
            size = len(document.text.encode())
        except UnicodeEncodeError as error:
            problem = f"{record.place} escapes half a character at {error.start} of its text"
            if self.choice.undecodable != "replace":
                return self._undecodable(Undecodable(record.id, problem))
            pairs = document.text.encode("utf-16", "surrogatepass")
            document = document._replace(text=pairs.decode("utf-16", "replace"))
            size = len(document.text.encode())
        if size < self.choice.min_bytes:
            return Dropped(record.id, f"shorter than {self.choice.min_bytes:,} bytes")
        return document

    def _read(self, record: Record, source: str) -> Document:
        value = self._field(record, self.choice.text_field)
        if self.chats and _are_messages(value):
            # Rows of tables have a null for each key that other messages have.
            messages = [{key: part for key, part in message.items() if part is not None} for message in value]
            return Document(record.id, json.dumps(messages, ensure_ascii=False, sort_keys=True), source, chat=True)
        return Document(record.id, self._text(record, self.choice.text_field), source)

    def _text(self, record: Record, field: str) -> str:
        """A field that must hold text."""
        if not self._has(record, field):
            raise UserError(f"{record.place} has no field {field!r}: set text_field to the one that holds the text")
        if not isinstance(text := self._field(record, field), str):
            kind = "null" if text is None else type(text).__name__
            raise UserError(f"{record.place} holds {kind} in {field!r}, not a string: correct or remove it")
        return text

    def _null(self, record: Record) -> Dropped:
        if self.choice.nulls == "stop":
            raise UserError(
                f"{record.place} holds null in {self.choice.text_field!r}, not a string: set nulls: drop, or correct it"
            )
        return Dropped(record.id, "null")

    def _has(self, record: Record, path: str) -> bool:
        """Whether a record has a field, or a null on the way to it."""
        value: Any = record.fields
        for key in path.split("."):
            if value is None:
                return True
            if not isinstance(value, dict) or key not in value:
                return False
            value = value[key]
        return True

    def _field(self, record: Record, path: str) -> Any:
        """A field by its path; None where a level is missing."""
        value: Any = record.fields
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value

    @property
    def reading(self) -> Reading:
        """The fields that documents need, and how plain text is decoded."""
        source = [self.choice.source_field] if self.choice.source_field else []
        paths = [self.choice.text_field, *(self.choice.where or ()), *source]
        return Reading(paths, self.encodings, self.choice.undecodable == "replace")

    def _undecodable(self, record: Undecodable) -> Dropped:
        if self.choice.undecodable == "stop":
            raise UserError(
                f"{record.problem}: set undecodable: drop (or replace), or name its encoding in `encodings`"
            )
        warnings.warn(f"{record.problem}: left out", stacklevel=2)
        return Dropped(record.id, f"not {' or '.join(self.encodings).upper()}")


def _are_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(m, dict) and "role" in m for m in value)


def _check_encoding(encoding: str) -> None:
    try:
        b" ".decode(encoding, "replace")  # of no bytes, Python takes any name
    except LookupError as error:
        raise UserError(f"encodings name {encoding!r}, which is no encoding of text ({error}): correct it") from error
