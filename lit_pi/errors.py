"""The one error for a mistake of the person at the keyboard, and what is one."""

import errno

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors of the operating system that free space mends."""


class UserError(ValueError):
    """A mistake of the user, told in one sentence: what is wrong, where (file, key, document), and what to do.

    The command line prints it as one line, without a traceback, and exits with status 2.
    """


def check_at_least(where: str, least: int, **counts: int | None) -> None:
    """Check that counts are not below the least value that has a meaning; those that are None are not given.

    Args:
        where: the thing whose options the counts are, for the message.
        least: the smallest value that is allowed.
        counts: the counts, by name.

    Raises:
        UserError: one is below it.
    """
    for name, value in counts.items():
        if value is not None and value < least:
            raise UserError(f"{name} of {where} is {value}: it must be {least} or more")
