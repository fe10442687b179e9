"""Files by path, folder or glob, on this machine or on the Hugging Face hub."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import hf_hub_download, snapshot_download

from lit_pi.data.corpora.corpus import Dropped
from lit_pi.data.corpora.readers import ENDINGS, is_supported
from lit_pi.data.corpora.walking import walk
from lit_pi.errors import UserError
from lit_pi.hub import dataset_repository

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


class HubFiles(NamedTuple):
    """Files of a repository of datasets on the hub.

    Attributes:
        repository: the repository's id.
        revision: branch, tag or commit.
        commit: the commit that it stands for now; None where the hub cannot be reached.
        names: paths of the files in it, sorted.
        folder: where they lie on this machine if the hub cannot be reached, but they were downloaded earlier.
    """

    repository: str
    revision: str
    commit: str | None
    names: list[str]
    folder: Path | None


def on_hub(pattern: str) -> bool:
    """Whether a pattern names files on the hub."""
    return pattern.startswith("hf://")


def local_files(patterns: Iterable[str]) -> dict[str, Path]:
    """The files that paths, folders and globs name, by their ids; those on the hub are left out.

    Raises:
        UserError: a pattern matches nothing that can be read, or names a file of another format.
    """
    files: dict[str, tuple[Path, str]] = {}
    for pattern in patterns:
        if not on_hub(pattern):
            for real, found in _readable(pattern).items():
                files.setdefault(real, found)
    return _by_id(files.values())


def unread_files(patterns: Iterable[str]) -> list[Dropped]:
    """The files of folders and globs that `local_files` leaves out, with the reasons; hidden ones are not counted."""
    unread: dict[str, Dropped] = {}
    for pattern in patterns:
        root, paths = walk(pattern) if not on_hub(pattern) else (Path(), {})
        for real, path in paths.items():
            if (reason := _unreadable(path)) is not None:
                unread.setdefault(real, Dropped(path.relative_to(root).as_posix(), reason))
    return list(unread.values())


def all_files(patterns: list[str]) -> list[File]:
    """The files that patterns name on this machine, and after them those on the hub.

    Raises:
        UserError: as `local_files`, or the hub cannot be reached and its files are not in the cache.
    """
    found = [File(name, lambda path=path: path) for name, path in local_files(patterns).items()]  # type: ignore[misc]
    return found + [file for pattern in patterns if on_hub(pattern) for file in _find_on_hub(pattern)]


def _readable(pattern: str) -> dict[str, tuple[Path, str]]:
    """The files that a pattern names, each with its path below the part that is no pattern, by paths without links."""
    root, paths = walk(pattern)
    readable = {real: path for real, path in paths.items() if _unreadable(path) is None}
    if not paths:
        raise UserError(f"no files match {pattern!r}: check the path, or name a file, a folder or a glob")
    if not readable:
        first = next(iter(paths.values()))
        reason = str(_unreadable(first))
        wrong = "has an ending that cannot be read" if "ending" in reason else f"is a {reason}"
        raise UserError(f"{first} {wrong}: supported are {', '.join(ENDINGS)}")
    return {real: (path.absolute(), path.relative_to(root).as_posix()) for real, path in readable.items()}


def _unreadable(path: Path) -> str | None:
    """The reason why a file is not read; None for one that is."""
    if not path.is_file():
        return "device or pipe" if path.exists() else "broken link"
    return None if is_supported(path) else f"ending {path.suffix.lower()}" if path.suffix else "no ending"


def _by_id(files: Iterable[tuple[Path, str]]) -> dict[str, Path]:
    """Files by their ids; where two share one, the whole path is the id."""
    found = list(files)
    count = Counter(name for _, name in found)
    return {name if count[name] == 1 else path.as_posix(): path for path, name in found}


def _find_on_hub(pattern: str) -> list[File]:
    found = hub_files(pattern)

    def fetch(name: str) -> Path:
        if found.folder is not None:
            return found.folder / name
        return Path(hf_hub_download(found.repository, name, repo_type="dataset", revision=found.revision))

    return [File(name, lambda name=name: fetch(name)) for name in found.names]  # type: ignore[misc]


def hub_files(pattern: str) -> HubFiles:
    """The files of a repository that a pattern names.

    Raises:
        UserError: there are none, or the hub cannot be reached and they are not in the cache.
    """
    parts = HUB_ADDRESS.fullmatch(pattern)
    if parts is None:
        raise UserError(f"{pattern!r} names no files on the hub: write hf://datasets/OWNER/NAME@REVISION/GLOB")
    repository, revision, folder = parts["repository"], parts["revision"] or "main", None
    commit, names, problem = dataset_repository(repository, revision)
    if commit is None:
        folder = _in_cache(repository, revision, parts["files"])
        if folder is None:
            raise UserError(f"cannot read {pattern} ({problem})")
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    found = sorted(name for name in names if fnmatch(name, parts["files"]) and is_supported(Path(name)))
    if not found:
        raise UserError(f"no files match {pattern!r} on the hub: check the repository, or name local files")
    return HubFiles(repository, revision, commit, found, folder)


def _in_cache(repository: str, revision: str, files: str) -> Path | None:
    """The folder of files that were downloaded earlier; None where there are none."""
    try:
        folder = Path(
            snapshot_download(
                repository, repo_type="dataset", revision=revision, allow_patterns=[files], local_files_only=True
            )
        )
    except OSError:
        return None
    return folder if any(path.is_file() for path in folder.rglob("*")) else None
