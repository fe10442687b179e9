"""Files and folders that are whole or absent, and JSON that knows whether it is what was written.

They are written beside their place, synced to the disk and renamed.
"""

import json
import mmap
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zlib_ng.zlib_ng import crc32  # seven times as fast as Python's own

from lit_pi.errors import DISK_FULL, UserError, shown

POINTER = b"version https://git-lfs.github.com/spec/"
"""How a file begins that Git LFS has not fetched."""

SEAL = "crc32"
"""Key of a sealed file: the checksum of all else that is in it."""

LONGEST_NAME = 100
"""Signs of a name that files may be called by; file systems hold 255 bytes, and endings are added."""


def check_name(name: object) -> None:
    """Check that an evaluation's name can be that of a file, and of a curve in dashboards.

    Raises:
        UserError: it is empty, too long, or has signs other than letters, digits, `-`, `_`, `.` and blanks.
    """
    if file_name(str(name)) != str(name):
        raise UserError(
            f"an evaluation is called {shown(repr(name))}, and files are named after it: take up to {LONGEST_NAME} "
            "letters, digits, `-`, `_`, `.` and blanks, and begin with a letter, digit or `_`"
        )


def file_name(name: str) -> str:
    """A name as that of one file in whatever folder, whoever gave it: signs that lead elsewhere become `-`."""
    kept = re.sub(r"[^\w .-]", "-", name)[:LONGEST_NAME].strip()
    return re.sub(r"^[.-]+", "", kept) or "unnamed"


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yield a path in the same folder, where a file or a folder is written that then takes its place at `path`.

    Whatever is killed or fails, at `path` stands what stood there before or all that is new. When the block raises,
    nothing is left of what it wrote; what a killed process left is removed by the next writer.

    Args:
        path: where the file or folder will be. The folder around it is made where it is missing.

    Raises:
        OSError: the disk cannot be written, or `path` is a folder with something in it.
    """
    partial = partial_of(path)
    remove(partial)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        put(partial, path)
    except BaseException as error:
        remove(partial)
        if isinstance(error, OSError) and error.errno in DISK_FULL and error.filename is None:
            error.filename = str(path)
        raise


def partial_of(path: Path) -> Path:
    """The path at which the file or folder that will be at `path` is written."""
    return path.with_name(f"{path.name}.partial")


def put(partial: Path, path: Path) -> None:
    """Give a finished file or folder its place, once all that it holds is on the disk.

    Raises:
        OSError: the disk is full, or `path` is a folder with something in it.
    """
    for inside in partial.rglob("*"):
        sync(inside)
    sync(partial)
    partial.replace(path)
    sync(path.parent)


def remove(path: Path) -> None:
    """Remove a file or a folder if it is there; a folder is gone from its place before its first file goes.

    Of a symbolic link the link goes, and not where it leads.
    """
    if path.is_dir() and not path.is_symlink():
        removed = path.with_name(f"{path.name}.removed")
        shutil.rmtree(removed, ignore_errors=True)
        path.rename(removed)
        shutil.rmtree(removed)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make what was written to a file, or made, renamed and removed in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_sealed(path: Path, content: dict[str, Any], default: Any = None) -> None:
    """Write JSON with a checksum, by which `read_sealed` knows it again; at `path` it is whole at any instant.

    Args:
        path: the file.
        content: what it says, without numbers that are not finite.
        default: makes JSON of what is none, as for `json.dumps`.

    Raises:
        OSError: the disk cannot be written.
    """
    plain = json.loads(json.dumps(content, default=default, allow_nan=False))
    with beside(path) as partial:
        partial.write_text(json.dumps(plain | {SEAL: _checksum_of(plain)}, indent=2))


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON, or not what was written; the message says which, as the end of a sentence.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not valid JSON: {error}") from error
    if not isinstance(content, dict) or SEAL not in content:
        raise ValueError("it has no checksum")
    if content.pop(SEAL) != _checksum_of(content):
        raise ValueError("it is not what was written, by its checksum")
    return content


def file_checksum(path: Path) -> str:
    """The CRC-32 of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return as_text(0)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return as_text(crc32(content))


def as_text(checksum: int) -> str:
    """A CRC-32 as eight hexadecimal digits."""
    return f"{checksum:08x}"


def _checksum_of(content: dict[str, Any]) -> str:
    return as_text(crc32(json.dumps(content).encode()))


def check_fetched(file: Path) -> None:
    """Check that a file is not what Git LFS leaves in the place of one.

    Raises:
        UserError: it is.
    """
    with file.open("rb") as content:
        if content.read(len(POINTER)) == POINTER:
            raise UserError(f"{file} is a Git LFS pointer and not the file itself: fetch it with `git lfs pull`")
