"""The one error for a mistake of the person at the keyboard, and what is one."""

import errno

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors of the operating system that free space mends."""


class UserError(ValueError):
    """What is wrong, where (file, key, document), and what to do, in one sentence.

    The command line prints it as one line, without a traceback, and exits with status 2.
    """


def check_at_least(where: str, least: int, **counts: int | None) -> None:
    """Check that counts are not below the least value that has a meaning; those that are None are not given.

    Args:
        where: what the counts are options of, for the message.
        least: value.
        counts: by name.

    Raises:
        UserError: one is below it.
    """
    for name, value in counts.items():
        if value is not None and value < least:
            raise UserError(f"{name} of {where} is {value}: it must be {least} or more")
