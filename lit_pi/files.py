"""Files and folders that are whole or absent: written beside their place, synced to the disk and renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    except BaseException:
        remove(partial)
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
    """Remove a file or a folder if it is there; a folder is gone from its place before its first file goes."""
    if path.is_dir():
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
