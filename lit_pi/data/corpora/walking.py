"""The files below a folder or of a glob, each one once, whatever links lead to it."""

import glob
import os
from collections import deque
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path

from lit_pi.errors import UserError

ANY_FOLDERS = "**"


def walk(pattern: str) -> tuple[Path, list[Path]]:
    """The files that a path, folder or glob names, and the folder above them that is no pattern.

    A file that links make many of is found once, under the path that follows the fewest links; links in circles end.
    Names that begin with a dot are found only where the pattern has the dot too, as in a shell.

    Args:
        pattern: a path, a folder (all files below) or a glob, in which `**` matches any folders.

    Returns:
        The folder, and the paths below it in their order.

    Raises:
        UserError: a folder cannot be read.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        return path.parent, [path]
    if path.is_dir():
        return path, _sorted(_matching(path, (ANY_FOLDERS, "*")))
    root = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
    return root, _sorted(_matching(root, path.parts[len(root.parts) :] if root.parts else path.parts))


def is_link_to_nothing(path: Path) -> bool:
    """Whether a link leads to no file and no folder."""
    return path.is_symlink() and not path.exists()


def _sorted(paths: Iterator[Path]) -> list[Path]:
    found: dict[str, Path] = {}
    for path in paths:
        found.setdefault(os.path.realpath(path), path)
    return sorted(found.values())


def _matching(root: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """Paths of everything but folders that matches parts of a pattern; those behind links come last."""
    waiting = deque([(root, parts)])
    seen = set()
    while waiting:
        path, parts = waiting.popleft()
        if not parts:
            if not path.is_dir():
                yield path
            continue
        # The same parts match the same files in a folder, by whichever links it was reached.
        if (place := (os.path.realpath(path), parts)) in seen or not path.is_dir():
            continue
        seen.add(place)
        real: list[tuple[Path, tuple[str, ...]]] = []
        linked: list[tuple[Path, tuple[str, ...]]] = []
        for found, rest in _steps(path, parts):
            (linked if found != path and found.is_symlink() else real).append((found, rest))
        waiting.extendleft(reversed(real))
        waiting.extend(linked)


def _steps(folder: Path, parts: tuple[str, ...]) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Where the first part of a pattern leads from a folder, and the parts that remain there."""
    first, rest = parts[0], parts[1:]
    if first == ANY_FOLDERS:
        yield folder, rest or ("*",)
        for entry in _entries(folder):
            if not entry.name.startswith(".") and entry.is_dir():
                yield entry, parts
    elif glob.has_magic(first):
        for entry in _entries(folder):
            hidden = entry.name.startswith(".") and not first.startswith(".")
            if not hidden and fnmatchcase(entry.name, first):
                yield entry, rest
    elif os.path.lexists(folder / first):
        yield folder / first, rest


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"cannot read the folder {folder} ({error.strerror}): check its permissions") from error
