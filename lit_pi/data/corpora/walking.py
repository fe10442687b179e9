"""The files below a folder or of a glob, each one once, whatever links lead to it."""

import glob
import os
from collections import deque
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from lit_pi.errors import UserError

ANY_FOLDERS = "**"


class Place(NamedTuple):
    """A path, and where it leads.

    Attributes:
        path: the path as it was found.
        real: the path without links.
        is_folder: whether a folder is there.
        is_link: whether the last part of the path is a link.
    """

    path: str
    real: str
    is_folder: bool
    is_link: bool = False


Parts = tuple[str, ...]
"""The parts of a pattern that remain."""


def walk(pattern: str) -> tuple[Path, dict[str, Path]]:
    """The files that a path, folder or glob names, and the folder above them that is no pattern.

    A file that links make many of is found once, under the path that follows the fewest links; links in circles end.
    Names that begin with a dot are found only where the pattern has the dot too, as in a shell.

    Args:
        pattern: a path, a folder (all files below) or a glob, in which `**` matches any folders.

    Returns:
        The folder, and the paths below it in their order, by the same paths without links.

    Raises:
        UserError: a folder cannot be read.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        return path.parent, {os.path.realpath(path): path}
    if path.is_dir():
        path /= f"{ANY_FOLDERS}/*"
        root = path.parents[1]
    else:
        root = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
    found: dict[str, Path] = {}
    for place in _matching(_place(str(root)), path.parts[len(root.parts) :]):
        found.setdefault(place.real, Path(place.path))
    return root, dict(sorted(found.items(), key=lambda item: item[1].parts))


def _matching(root: Place, parts: Parts) -> Iterator[Place]:
    """Everything but folders that matches parts of a pattern; what is behind links comes last."""
    waiting = deque([(root, parts)])
    seen = set()
    while waiting:
        place, parts = waiting.popleft()
        if not parts:
            if not place.is_folder:
                yield place
        # The same parts match the same files in a folder, by whichever links it was reached.
        elif place.is_folder and (place.real, parts) not in seen:
            seen.add((place.real, parts))
            steps = list(_steps(place, parts))
            waiting.extendleft(step for step in reversed(steps) if not step[0].is_link)
            waiting.extend(step for step in steps if step[0].is_link)


def _steps(folder: Place, parts: Parts) -> Iterator[tuple[Place, Parts]]:
    """Where the first part of a pattern leads from a folder, and the parts that remain there."""
    first, rest = parts[0], parts[1:]
    if first == ANY_FOLDERS:
        yield folder._replace(is_link=False), rest or ("*",)
        for name, place in _entries(folder):
            if place.is_folder and not name.startswith("."):
                yield place, parts
    elif glob.has_magic(first):
        for name, place in _entries(folder):
            if fnmatchcase(name, first) and (first.startswith(".") or not name.startswith(".")):
                yield place, rest
    elif os.path.lexists(path := os.path.join(folder.path, first)):  # noqa: PTH118
        yield _place(path), rest


def _place(path: str) -> Place:
    return Place(path, os.path.realpath(path), os.path.isdir(path), os.path.islink(path))  # noqa: PTH112, PTH114


def _entries(folder: Place) -> list[tuple[str, Place]]:
    """Names and places in a folder; only links are looked up, for there may be millions of files."""
    try:
        with os.scandir(folder.path) as entries:
            return [
                (
                    entry.name,
                    _place(entry.path)
                    if entry.is_symlink()
                    else Place(entry.path, os.path.join(folder.real, entry.name), entry.is_dir()),  # noqa: PTH118
                )
                for entry in entries
            ]
    except OSError as error:
        raise UserError(f"cannot read the folder {folder.path} ({error.strerror}): check its permissions") from error
