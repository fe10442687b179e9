"""Files by path, folder or glob, on this machine or on the Hugging Face hub."""

import glob
import re
from collections import Counter
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfApi, hf_hub_download, snapshot_download

from lit_pi.data.corpora.readers import FORMATS, is_supported
from lit_pi.errors import UserError
from lit_pi.hub import HUB_TIMEOUT, UNREACHABLE

HUB_ADDRESS = re.compile(
    r"hf://datasets/(?P<repository>[^/]+/[^/@]+)(@(?P<revision>refs/[^/]+/[^/]+|[^/]+))?/(?P<files>.+)"
)
"""`hf://datasets/OWNER/NAME@REVISION/GLOB`, as fsspec, pandas and duckdb write it."""


class File(NamedTuple):
    """A file of documents.

    Attributes:
        id: its path below the part of the pattern that is no pattern.
        fetch: gives its path on this machine; downloads it into the Hugging Face cache when it is on the hub.
    """

    id: str
    fetch: Callable[[], Path]


def on_hub(pattern: str) -> bool:
    """Whether a pattern names files on the hub."""
    return pattern.startswith("hf://")


def local_files(patterns: Iterable[str]) -> dict[str, Path]:
    """The files that paths, folders and globs name, by their ids; those on the hub are left out.

    Raises:
        UserError: a pattern matches nothing, or a file of another format.
    """
    files: dict[Path, str] = {}
    for pattern in patterns:
        if not on_hub(pattern):
            for path, name in _find(pattern):
                files.setdefault(path, name)
    return _by_id(files)


def all_files(patterns: list[str]) -> list[File]:
    """The files that patterns name on this machine, and after them those on the hub.

    Raises:
        UserError: as `local_files`, or the hub cannot be reached and its files are not in the cache.
    """
    found = [File(name, lambda path=path: path) for name, path in local_files(patterns).items()]  # type: ignore[misc]
    return found + [file for pattern in patterns if on_hub(pattern) for file in _find_on_hub(pattern)]


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


def _find_on_hub(pattern: str) -> list[File]:
    parts = HUB_ADDRESS.fullmatch(pattern)
    if parts is None:
        raise UserError(f"{pattern!r} names no files on the hub: write hf://datasets/OWNER/NAME@REVISION/GLOB")
    repository, revision = parts["repository"], parts["revision"] or "main"
    try:
        listed = HfApi().dataset_info(repository, revision=revision, timeout=HUB_TIMEOUT).siblings or []
        names = [sibling.rfilename for sibling in listed]
    except UNREACHABLE as error:
        names = _in_cache(repository, revision, parts["files"])
        if not names:
            reason = str(error).split("\n")[0].rstrip(". ")
            raise UserError(f"cannot read {pattern} ({reason})") from error
    found = sorted(name for name in names if fnmatch(name, parts["files"]) and is_supported(Path(name)))
    if not found:
        raise UserError(f"no files match {pattern!r} on the hub: check the repository, or name local files")

    def fetch(name: str) -> Path:
        return Path(hf_hub_download(repository, name, repo_type="dataset", revision=revision))

    return [File(name, lambda name=name: fetch(name)) for name in found]  # type: ignore[misc]


def _in_cache(repository: str, revision: str, files: str) -> list[str]:
    """Names of the files that an earlier run has downloaded."""
    try:
        folder = snapshot_download(
            repository, repo_type="dataset", revision=revision, allow_patterns=[files], local_files_only=True
        )
    except OSError:
        return []
    return [path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()]
