"""Documents in local files, or in files on the hub."""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from lit_pi.data.corpora.corpus import Corpus, Document, Dropped, Split, describe_files, split_by_hash
from lit_pi.data.corpora.files import all_files, local_files, on_hub
from lit_pi.data.corpora.readers import Reading, Record, Undecodable, read_records
from lit_pi.errors import UserError

Files = str | list[str] | dict[str, str | list[str]]
Value = str | int | float | bool


class TextFiles(Corpus):
    """Files of text: a `.txt`, `.md`, `.py` or `.tex` file is a document, as is a line or row of the others.

    The others are `.jsonl`, `.jsonl.gz`, `.jsonl.zst` and `.parquet`. Files are read in the order of the patterns,
    sorted by path within each; hidden files are left out unless they are named. A pattern is a path, a folder (all
    supported files below), a glob (`**` matches any folders), or `hf://datasets/OWNER/NAME@REVISION/GLOB` for files
    on the hub, which are downloaded one by one into the Hugging Face cache. Whatever is left out is counted.

    Args:
        train: files to train on: a pattern, a list of them, or for each named source its pattern or patterns.
        validation: files of the `validation` split, given in the same ways.
        test: files of the `test` split, given in the same ways.
        held_out: instead of files for `validation` and `test`, the share of the documents of `train` that a hash of
            their ids puts into each of them.
        text_field: key or column of the text in JSONL and Parquet files.
        source_field: key or column that names a document's source, with dots between levels (`meta.source`); by
            default the name that `train` gives to its files.
        weights: for each source, how many training sequences are drawn from it in relation to the others; by default
            sequences are drawn from all documents alike.
        where: take only documents whose fields (dots between levels) have this value, or one of these.
        min_bytes: documents with fewer UTF-8 bytes are left out.
        encodings: encodings of plain text files, tried in order; JSONL and Parquet are UTF-8 by definition.
        undecodable: a document in none of the encodings can `stop` the command, be left out (`drop`), or be read with
            U+FFFD in place of what is broken (`replace`).

    Raises:
        UserError: `held_out` or a weight is out of range, or `held_out` stands beside files of those splits.
    """

    bring: ClassVar[str] = "bring the files to this machine and name them instead"
    """Advice in the error that the hub cannot be reached."""

    def __init__(
        self,
        train: Files | None = None,
        validation: Files | None = None,
        test: Files | None = None,
        held_out: float = 0.0,
        text_field: str = "text",
        source_field: str | None = None,
        weights: dict[str, float] | None = None,
        where: dict[str, Value | list[Value]] | None = None,
        min_bytes: int = 0,
        encodings: list[str] | None = None,
        undecodable: Literal["stop", "drop", "replace"] = "stop",
    ) -> None:
        if not 0 <= held_out < 0.5:
            raise UserError(f"held_out is {held_out}: it must be at least 0 and less than 0.5")
        if held_out and (validation or test):
            raise UserError("held_out stands beside files for `validation` or `test`: give one or the other")
        if weights is not None and (min(weights.values(), default=0) < 0 or not sum(weights.values()) > 0):
            raise UserError(f"weights are {weights}: none may be negative, and one must be positive")
        self.files: dict[Split, Files | None] = {"train": train, "validation": validation, "test": test}
        self.held_out = held_out
        self.text_field = text_field
        self.source_field = source_field
        self.where = where or {}
        self.min_bytes = min_bytes
        self.encodings = encodings or ["utf-8"]
        self.undecodable = undecodable
        self._weights = weights

    @property
    def name(self) -> str:
        """`text_files`, and likewise for the corpora that derive from it."""
        return "text_files"

    @property
    def weights(self) -> Mapping[str, float] | None:
        """The weights as they were given."""
        return self._weights

    def documents(self, split: Split) -> Iterator[Document | Dropped]:
        """The documents of a split's files, file after file."""
        for source, patterns in self._sources(split).items():
            try:
                files = all_files(patterns)
            except UserError as error:
                raise UserError(f"{error}: {self.bring}") if any(map(on_hub, patterns)) else error from error
            for file in files:
                for record in read_records(file.fetch(), file.id, self._reading):
                    if not self.held_out or split_by_hash(record.id, self.held_out) == split:
                        yield self._document(record, source)

    def fingerprint(self, split: Split) -> dict[str, Any]:
        """The options, and ids, sizes and times of the split's files; those on the hub by their patterns alone."""
        options: dict[str, Any] = {
            "text_field": self.text_field,
            "source_field": self.source_field,
            "where": self.where,
            "min_bytes": self.min_bytes,
            "encodings": self.encodings,
            "undecodable": self.undecodable,
        }
        if self.held_out:
            options["hashed"] = [split, self.held_out]
        sources = self._sources(split)
        hub = [pattern for patterns in sources.values() for pattern in patterns if on_hub(pattern)]
        local = {source: describe_files(local_files(patterns)) for source, patterns in sources.items()}
        return options | {"files": local, "hub": hub}

    def _document(self, record: Record | Undecodable, source: str) -> Document | Dropped:
        if isinstance(record, Undecodable):
            return self._undecodable(record)
        for path, wanted in self.where.items():
            if self._field(record, path) not in (wanted if isinstance(wanted, list) else [wanted]):
                return Dropped(record.id, f"another {path}")
        if self.source_field is not None:
            source = str(self._field(record, self.source_field))
        document = Document(record.id, self._text(record, self.text_field), source)
        try:
            size = len(document.text.encode())
        except UnicodeEncodeError as error:
            problem = f"{record.place} escapes half a character at {error.start} of its text"
            if self.undecodable != "replace":
                return self._undecodable(Undecodable(record.id, problem))
            pairs = document.text.encode("utf-16", "surrogatepass")
            document = document._replace(text=pairs.decode("utf-16", "replace"))
            size = len(document.text.encode())
        if size < self.min_bytes:
            return Dropped(record.id, f"shorter than {self.min_bytes:,} bytes")
        return document

    def _text(self, record: Record, field: str) -> str:
        """A field that must hold text."""
        if field not in record.fields:
            raise UserError(f"{record.place} has no field {field!r}: set text_field to the one that holds the text")
        if not isinstance(text := record.fields[field], str):
            kind = "null" if text is None else type(text).__name__
            raise UserError(f"{record.place} holds {kind} in {field!r}, not a string: correct or remove it")
        return text

    def _field(self, record: Record, path: str) -> Any:
        """A field by its path; None where a level is missing."""
        value: Any = record.fields
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value

    @property
    def _reading(self) -> Reading:
        paths = [*self.where, *([self.source_field] if self.source_field else [])]
        fields = dict.fromkeys([self.text_field, *(path.split(".")[0] for path in paths)])
        return Reading(list(fields), self.encodings, self.undecodable == "replace")

    def _undecodable(self, record: Undecodable) -> Dropped:
        if self.undecodable == "stop":
            raise UserError(
                f"{record.problem}: set undecodable: drop (or replace), or name its encoding in `encodings`"
            )
        warnings.warn(f"{record.problem}: left out", stacklevel=2)
        return Dropped(record.id, f"not {' or '.join(self.encodings).upper()}")

    def _sources(self, split: Split) -> dict[str, list[str]]:
        """Patterns of a split's files by source."""
        files = self.files["train" if self.held_out else split]
        if not files:
            raise UserError(f"{type(self).__name__} has no `{split}` files: name them with `{split}: [...]`")
        named = files if isinstance(files, dict) else {"": files}
        return {source: [found] if isinstance(found, str) else found for source, found in named.items()}
