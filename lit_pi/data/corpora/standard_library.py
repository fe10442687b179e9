"""The corpus that every machine has: Python's own sources."""

import hashlib
import os
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_pi.data.corpora.corpus import Corpus, Document, Dropped, Split, describe_files, split_by_hash
from lit_pi.errors import UserError

INSTALLED = {"site-packages", "dist-packages", "__pycache__"}
TESTS = {"test", "tests", "idle_test"}
HELD_OUT = 0.05
"""Share of the files in `validation`, and again in `test`."""


class StandardLibrary(Corpus):
    """The `.py` files of the standard library of the interpreter that runs; a file is a document.

    A hash of a file's relative path puts it into `train` (90 %), `validation` or `test` (5 % each), the same one
    on every machine. Files that are not UTF-8 are dropped.

    Args:
        tests: also take the standard library's own tests, about as many bytes again.
    """

    def __init__(self, tests: bool = False) -> None:
        self.tests = tests

    @property
    def name(self) -> str:
        """`standard_library`."""
        return "standard_library"

    def documents(self, split: Split) -> Iterator[Document | Dropped]:
        """The files of a split, sorted by path."""
        for name, path in self._files(split).items():
            try:
                yield Document(name, path.read_bytes().decode())
            except UnicodeDecodeError:
                yield Dropped(name, "not UTF-8")

    def fingerprint(self, split: Split) -> dict[str, Any]:
        """The interpreter's version, the option, and names, sizes and times of the files."""
        return {"python": platform.python_version(), "tests": self.tests, **describe_files(self._files(split))}

    def _files(self, split: Split) -> dict[str, Path]:
        """Paths of a split's files by their relative paths."""
        root = Path(sysconfig.get_path("stdlib"))
        excluded = INSTALLED if self.tests else INSTALLED | TESTS
        paths = []
        for folder, below, names in os.walk(root):
            below[:] = [name for name in below if name not in excluded]  # os.walk leaves these out
            paths += [Path(folder, name) for name in names if name.endswith(".py")]
        files = {path.relative_to(root).as_posix(): path for path in sorted(paths)}
        if not files:
            raise UserError(f"{root} holds no Python sources: name other documents, for instance with TextFiles")
        return {name: path for name, path in files.items() if split_by_hash(_hash(name), HELD_OUT) == split}


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()
