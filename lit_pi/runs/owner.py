"""One process owns a run directory at a time."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import chain, count
from pathlib import Path

from filelock import FileLock, Timeout

from lit_pi.errors import UserError
from lit_pi.runs.ranks import is_first

FILE = ".lock"
"""Locked by the owner, and free when its process ends, however it ends."""


PATIENCE = 0.5
"""Seconds in which a reader that only looks whether a directory is owned has looked."""


def unused_directory(folder: Path) -> Path:
    """A new run directory in `folder`, named by the second; of runs that begin in the same one, each gets its own."""
    name = f"{datetime.now():%Y%m%d-%H%M%S}"
    for end in chain([""], map("-{}".format, count(2))):
        with suppress(FileExistsError):
            if is_first():
                (folder / f"{name}{end}").mkdir(parents=True)
            break
    return folder / f"{name}{end}"


def check_writable(run: Path) -> None:
    """Whether a run directory can be written, or made where it is missing.

    Raises:
        UserError: it cannot.
    """
    folder = next(place for place in (run.absolute(), *run.absolute().parents) if place.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        why = "cannot be written (a read-only disk, or another's folder)" if folder.is_dir() else "is no folder"
        raise UserError(
            f"cannot write to the run directory {run}, because {folder} {why}: name another with "
            "--trainer.default_root_dir"
        )


@contextmanager
def owned(run: Path) -> Iterator[None]:
    """Own a run directory, which is made where it is missing; ranks beside the first own it through that one.

    Raises:
        UserError: another process owns it.
    """
    if not is_first():
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / FILE, timeout=PATIENCE, poll_interval=PATIENCE / 10)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"{run} is in use{_by_whom(run)}: wait until it has ended, or name another directory with "
            "--trainer.default_root_dir"
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_owned(run: Path) -> bool:
    """Whether a process owns a run directory at this moment."""
    try:
        with (run / FILE).open("rb") as file:  # which a folder that cannot be written allows too
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _by_whom(run: Path) -> str:
    try:
        status = json.loads((run / "status.json").read_text())
        return f" by `{status['command']}`, process {int(status['pid'])} on {status['host']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return ""
