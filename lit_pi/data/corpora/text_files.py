"""Documents in local files, or in files on the hub."""

from collections.abc import Iterator
from itertools import chain
from typing import Any, ClassVar, Literal

from lit_pi.data.corpora.corpus import Duplicates, Split, describe_files
from lit_pi.data.corpora.dataset_rows import DatasetAddress, read_rows
from lit_pi.data.corpora.files import HubFiles, hub_files, local_files, on_hub, unread_files
from lit_pi.data.corpora.readers import read_records
from lit_pi.data.corpora.records import Choice, Found, RecordCorpus, Value
from lit_pi.errors import UserError

Files = str | list[str] | dict[str, str | list[str]]


class TextFiles(RecordCorpus):
    """Files of text: a `.txt`, `.md`, `.py` or `.tex` file is a document, as is a record of the others.

    The others are `.jsonl` (a line), `.json` (an entry of its list, or the one object) and `.parquet` (a row). All but
    Parquet may be compressed: `.gz`, `.bz2`, `.xz` or `.zst` behind their ending. Files are read in the order of the
    patterns, sorted by path within each; hidden files are left out unless they are named. A pattern is a path, a folder
    (all supported files below), a glob (`**` matches any folders), or `hf://datasets/OWNER/NAME@REVISION/GLOB` for
    files on the hub, which `datasets` streams: nothing is copied to disk first. A file that several links or patterns
    lead to is read once. All else that is left out is counted.

    Args:
        train: files to train on: a pattern, a list of them, or for each named source its pattern or patterns.
        validation: files of the `validation` split, given in the same ways.
        test: files of the `test` split, given in the same ways.
        held_out: instead of files for `validation` and `test`, the share of the documents of `train` that a hash of
            their content puts into each of them.
        text_field: key or column of the text in JSON and Parquet files, with dots between levels (`meta.text`); one
            that holds chat messages (`messages`) is written out by the tokenizer's template.
        source_field: key or column that names a document's source, with dots between levels (`meta.source`); by
            default the name that `train` gives to its files.
        weights: for each source, how many training sequences are drawn from it in relation to the others; by default
            sequences are drawn from all documents alike.
        where: take only documents whose fields (dots between levels) have this value, or one of these.
        min_bytes: documents with fewer UTF-8 bytes are left out.
        encodings: encodings of plain text files, tried in order; JSON and Parquet are UTF-8 by definition.
        undecodable: a document in none of the encodings can `stop` the command, be left out (`drop`), or be read with
            U+FFFD in place of what is broken (`replace`).
        nulls: a record whose text is null can `stop` the command, or be left out (`drop`).
        duplicates: documents whose text came before are left out (`drop`), or kept and counted (`keep`).

    Raises:
        UserError: an option is out of its range, or `held_out` stands beside files of those splits.
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
        nulls: Literal["stop", "drop"] = "stop",
        duplicates: Duplicates = "drop",
    ) -> None:
        choice = Choice(held_out, text_field, source_field, weights, where, min_bytes, undecodable, nulls, duplicates)
        super().__init__(choice, encodings)
        if held_out and (validation or test):
            raise UserError("held_out stands beside files for `validation` or `test`: give one or the other")
        self.files: dict[Split, Files | None] = {"train": train, "validation": validation, "test": test}

    @property
    def name(self) -> str:
        """`text_files`, and likewise for the corpora that derive from it."""
        return "text_files"

    def records(self, split: Split) -> Iterator[tuple[str, Found]]:
        """The records of a split's files, file after file, and at last the files that are not read."""
        sources = self._sources(split)
        for source, patterns in sources.items():
            for name, path in local_files(patterns).items():
                for record in read_records(path, name, self.reading):
                    yield source, record
            for record in chain.from_iterable(self._streamed(pattern) for pattern in filter(on_hub, patterns)):
                yield source, record
        # After all documents, whose places in the split depend on nothing else then.
        for source, patterns in sources.items():
            for unread in unread_files(patterns):
                yield source, unread

    def fingerprint(self, split: Split) -> dict[str, Any]:
        """The options, and ids, sizes and times of the split's files; those on the hub by their patterns alone."""
        sources = self._sources(split)
        hub = [pattern for patterns in sources.values() for pattern in patterns if on_hub(pattern)]
        local = {source: describe_files(local_files(patterns)) for source, patterns in sources.items()}
        return self.options(split) | {"files": local, "hub": hub}

    def origin(self, split: Split) -> dict[str, Any]:
        """The commits of repositories on the hub, by the patterns of their files."""
        patterns = [pattern for patterns in self._sources(split).values() for pattern in patterns if on_hub(pattern)]
        return {pattern: self._listed(pattern).commit for pattern in patterns}

    def _listed(self, pattern: str) -> HubFiles:
        try:
            return hub_files(pattern)
        except UserError as error:
            raise UserError(f"{error}: {self.bring}") from error

    def _streamed(self, pattern: str) -> Iterator[Found]:
        """The records of files on the hub, without a copy on this machine; those in the cache where it is away."""
        found = self._listed(pattern)
        for name in found.names:
            if found.folder is not None:
                yield from read_records(found.folder / name, name, self.reading)
            else:
                address = DatasetAddress(found.repository, revision=found.revision, data_files=name)
                yield from read_rows(address, "train", name, self.reading, self.bring)

    def _sources(self, split: Split) -> dict[str, list[str]]:
        """Patterns of a split's files by source."""
        files = self.files["train" if self.choice.held_out else split]
        if not files:
            raise UserError(f"{type(self).__name__} has no `{split}` files: name them with `{split}: [...]`")
        named = files if isinstance(files, dict) else {"": files}
        return {source: [found] if isinstance(found, str) else found for source, found in named.items()}
