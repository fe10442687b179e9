"""Documents in local files."""

import glob
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

from lit_pi.data.corpora.corpus import Corpus, Document, Dropped, Split, describe_files
from lit_pi.data.corpora.readers import FORMATS, Undecodable, is_supported, read_documents
from lit_pi.errors import UserError


class TextFiles(Corpus):
    """Local files: a `.txt`, `.md`, `.py` or `.tex` file is a document, as is a line or row of the others.

    The others are `.jsonl`, `.jsonl.gz`, `.jsonl.zst` and `.parquet`. Files are read in the order of the patterns,
    sorted by path within each; hidden files are left out unless they are named.

    Args:
        train: files to train on: paths, folders (all supported files below), or globs (`**` matches any folders).
        validation: files of the `validation` split, likewise.
        test: files of the `test` split, likewise.
        text_field: key or column of the text in JSONL and Parquet files.
        skip_undecodable: leave out documents that are not UTF-8, with a warning, instead of stopping there.
    """

    def __init__(
        self,
        train: str | list[str] | None = None,
        validation: str | list[str] | None = None,
        test: str | list[str] | None = None,
        text_field: str = "text",
        skip_undecodable: bool = False,
    ) -> None:
        self.patterns: dict[Split, str | list[str] | None] = {"train": train, "validation": validation, "test": test}
        self.text_field = text_field
        self.skip_undecodable = skip_undecodable

    @property
    def name(self) -> str:
        """`text_files`."""
        return "text_files"

    def documents(self, split: Split) -> Iterator[Document | Dropped]:
        """The documents of a split's files, file after file."""
        for name, path in self._files(split).items():
            for document in read_documents(path, name, self.text_field):
                yield self._drop(document) if isinstance(document, Undecodable) else document

    def fingerprint(self, split: Split) -> dict[str, Any]:
        """The options, and ids, sizes and times of the split's files."""
        options = {"text_field": self.text_field, "skip_undecodable": self.skip_undecodable}
        return options | describe_files(self._files(split))

    def _drop(self, document: Undecodable) -> Dropped:
        if not self.skip_undecodable:
            raise UserError(f"{document.problem}: set skip_undecodable: true to use the others")
        warnings.warn(f"{document.problem}: left out", stacklevel=2)
        return Dropped(document.id, "not UTF-8")

    def _files(self, split: Split) -> dict[str, Path]:
        """Paths of a split's files by their ids."""
        patterns = self.patterns[split]
        if not patterns:
            raise UserError(f"TextFiles has no `{split}` files: name them with `{split}: [...]`")
        files: dict[Path, str] = {}
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            for path, name in _find(pattern):
                files.setdefault(path, name)
        return _by_id(files)


def _find(pattern: str) -> list[tuple[Path, str]]:
    """The files that a path, folder or glob names, each with its path below the part that is no pattern."""
    path = Path(pattern).expanduser()
    if path.is_file():
        root, paths = path.parent, [path]
    elif path.is_dir():
        root, paths = path, [found for found in _glob(Path(glob.escape(str(path)), "**", "*")) if is_supported(found)]
    else:
        root, paths = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts)), _glob(path)
    if not paths:
        raise UserError(f"no files match {pattern!r}: check the path, or name a file, a folder or a glob")
    for found in paths:
        if not is_supported(found):
            raise UserError(f"{found} has an ending that cannot be read: supported are {', '.join(FORMATS)}")
    return [(found.absolute(), found.relative_to(root).as_posix()) for found in paths]


def _glob(pattern: Path) -> list[Path]:
    # Path.glob would find hidden files too.
    return sorted(path for path in map(Path, glob.glob(str(pattern), recursive=True)) if path.is_file())  # noqa: PTH207


def _by_id(files: dict[Path, str]) -> dict[str, Path]:
    """Files by their ids; where two share one, the whole path is the id."""
    count = Counter(files.values())
    return {name if count[name] == 1 else path.as_posix(): path for path, name in files.items()}
