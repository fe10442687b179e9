"""Errors that are told in one sentence: mistakes of the person at the keyboard, and runs that cannot go on."""

import errno
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors of the operating system that free space mends."""

SHOWN = 80
"""Signs of a value that a sentence shows."""


class UserError(ValueError):
    """A mistake of the user, told in one sentence: what is wrong, where (file, key, document), and what to do.

    The command line prints it as one line, without a traceback, and exits with status 2.

    Args:
        message: the sentence.
    """

    def __init__(self, message: object = "") -> None:
        said = str(message)
        if said.startswith(f"Caught {type(self).__name__} "):  # torch tells a DataLoader worker's with its traceback
            said = said.rpartition(f"{type(self).__name__}: ")[2].strip()
        super().__init__(said)


class DamagedError(UserError):
    """A file of a run that is not what was written, so that nothing can be said of what it was to tell."""


class RunError(RuntimeError):
    """A run that cannot go on, through nobody's mistake at the keyboard, told in one sentence.

    The command line prints it as one line, without a traceback, and exits with status 1.
    """


def sentence_of(error: BaseException) -> str:
    """An error in one line: what it says, and its kind where it is none of lit_pi's own."""
    said = " ".join(str(error).split())
    return said if isinstance(error, (UserError, RunError)) else f"{type(error).__name__}: {said}".removesuffix(": ")


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that led to it, the latest first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def shown(value: object) -> str:
    """A value as a sentence shows it: on one line, without signs that steer a terminal, and cut where it is long."""
    text = printable(str(value))
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def printable(text: str) -> str:
    """A text on one line, without signs that steer a terminal or turn the direction of writing."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def nearest(name: str, names: Iterable[str]) -> str:
    """The name that somebody may have meant, as the end of a clause; nothing where none is near."""
    known = {each.lower(): each for each in names}
    near = get_close_matches(name.lower(), known, n=1)
    return f" (did you mean `{known[near[0]]}`?)" if near else ""
