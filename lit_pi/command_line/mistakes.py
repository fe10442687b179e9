"""Which errors are mistakes of the user, and their sentence."""

import errno
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError

from lit_pi.errors import DISK_FULL, UserError, chain_of, printable, shown
from lit_pi.secrets import hidden

PLACES = {
    errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR,
    errno.ENOTEMPTY, errno.EPERM, errno.EROFS,
}  # fmt: skip
"""Errors of the operating system that another place mends."""
RUST: dict[type[BaseException], str] = {SafetensorError: "the file of weights", Exception: "the tokenizer"}
"""Files that libraries in Rust write, by what they raise instead of an OSError."""
NO_MEMORY = ("can't allocate memory", "CUDA out of memory")
TOO_MANY = "Too many open files"
"""Words of the operating system, which torch repeats in errors of its own."""


def mistake_behind(error: BaseException | None) -> str | None:
    """The sentence of the user's mistake that led to an error, whatever was raised around it, without secrets."""
    said = _mistake_behind(error)
    return said and hidden(said)


def _mistake_behind(error: BaseException | None) -> str | None:
    for each in chain_of(error):
        if isinstance(each, (UserError, MisconfigurationException)):
            return printable(" ".join(str(each).split()))
        if isinstance(each, OmegaConfBaseException):
            return _unresolved(each)
        if type(each) in RUST and (number := re.search(r"\(os error (\d+)\)", str(each))):
            each = OSError(int(number[1]), os.strerror(int(number[1])), RUST[type(each)])
        if isinstance(each, OSError) and (said := _of_the_system(each)):
            return said
        if isinstance(each, MemoryError) or any(sign in str(each) for sign in NO_MEMORY):
            return "there is too little memory: take a smaller model, batch or context, or a machine with more"
        if TOO_MANY in str(each):
            return "too many files are open: allow more with `ulimit -n 4096`, or take fewer data.num_workers"
    return None


def _unresolved(error: OmegaConfBaseException) -> str:
    reason = (
        (str(error) or "no reason given").splitlines()[0].rpartition("while resolving interpolation: ")[2].strip('"')
    )
    if name := re.match(r"Environment variable '(.*)' not found", reason):
        problem, mend = f"there is no environment variable {name[1]}", "set it"
    elif name := re.match(r"Interpolation key '\.*(.*)' not found", reason):
        problem, mend = f"there is no option {name[1]}", "correct it, or name what is there"
    else:
        problem, mend = reason, "correct it"
    key = str(getattr(error, "full_key", None) or "").partition(".")[2]  # behind the name of the command
    where = f" in {shown(key)}" if key else ""
    return f"a `${{...}}`{where} cannot be resolved: {shown(problem)}; {mend}"


@contextmanager
def mistakes_of_threads() -> Iterator[None]:
    """Raise the mistake that ended a thread, which prints no traceback, if the block does not end by one itself.

    TensorBoard writes in a thread, which a full disk may end without the run's noticing.
    """
    met: list[BaseException] = []
    before = threading.excepthook

    def meet(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and mistake_behind(args.exc_value):
            met.append(args.exc_value)
        else:
            before(args)

    threading.excepthook = meet
    yield
    if met:
        raise met[0]
    threading.excepthook = before  # but not after an error: the thread that met it may still be ending


def _of_the_system(error: OSError) -> str | None:
    name = error.filename
    place = None if name is None else shown(name if isinstance(name, int) else os.fsdecode(name))
    if error.errno in DISK_FULL:
        where = "" if place is None else f" where {place} is written"
        return f"the disk is full{where}: free space, or write elsewhere, and run again"
    if error.errno in PLACES and place is not None:
        return f"{place} cannot be read or written ({error.strerror}): name another place, or mend this one"
    return None
