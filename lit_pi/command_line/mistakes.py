"""Which errors are mistakes of the user, and their sentence."""

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_pi.errors import DISK_FULL, UserError, chain_of


def mistake_behind(error: BaseException | None) -> str | None:
    """The sentence of the user's mistake that led to an error, whatever was raised around it."""
    for each in chain_of(error):
        if isinstance(each, (UserError, MisconfigurationException)):
            return " ".join(str(each).split())
        if isinstance(each, OSError) and each.errno in DISK_FULL:
            return "the disk is full: free space, or write elsewhere, and run again"
    return None
