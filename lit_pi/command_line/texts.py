"""Texts of a command line and of its configuration, any of which may become the name of a file."""

from collections.abc import Iterable
from pathlib import PurePath

from jsonargparse import Namespace

from lit_pi.command_line.leaves import leaves
from lit_pi.errors import UserError, shown


def check_words(words: Iterable[str]) -> None:
    """Check the words of a command line, before a file is looked for by one.

    Raises:
        UserError: one has signs that no name of a file has.
    """
    for word in words:
        option, _, value = word.rpartition("=")
        _check(option or "a word of the command line", value)


def check_texts(config: Namespace) -> None:
    """Check all texts of a configuration, where a file or a variable may have put any sign.

    Raises:
        UserError: one has signs that no name of a file has.
    """
    for key, value in leaves(config.as_dict()):
        if isinstance(value, (str, PurePath)):
            _check(key, str(value))


def _check(key: str, text: str) -> None:
    if "\0" in text:
        raise UserError(f"{shown(key)} is `{shown(text)}`, with a NUL byte in it, which no name has: remove that")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{shown(key)} is `{shown(text)}`, which is not UTF-8 at character {error.start}: rename what it names, or "
            "correct it"
        ) from error
