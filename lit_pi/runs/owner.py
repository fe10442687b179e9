"""One process owns a run directory at a time."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lit_pi.errors import UserError
from lit_pi.runs.ranks import is_first

FILE = ".lock"
"""Locked by the owner, and free when its process ends, however it ends."""


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
    lock = FileLock(run / FILE, timeout=0)
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
    if not (run / FILE).exists():
        return False
    lock = FileLock(run / FILE, timeout=0)
    try:
        lock.acquire()
    except (Timeout, OSError):
        return True
    lock.release()
    return False


def _by_whom(run: Path) -> str:
    try:
        status = json.loads((run / "status.json").read_text())
        return f" by `{status['command']}`, process {int(status['pid'])} on {status['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
