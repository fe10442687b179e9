"""Progress bars of slow work, all of one kind."""

from collections.abc import Iterable
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from tqdm import tqdm

DELAY = 2.0
"""Seconds that work takes before its bar appears."""


def progress(
    title: str, items: Iterable[Any] | None = None, total: int | None = None, shown: bool | None = None
) -> tqdm:
    """A bar on stderr over the items of a loop, or over steps that `update` counts; quick work shows none.

    Args:
        title: title of the bar, for example "Encoding documents".
        items: the items that the loop goes through.
        total: how many steps there will be, where there are no items; None if nobody knows.
        shown: whether this process may show the bar; by default rank 0 alone does.
    """
    if shown is None:
        shown = getattr(rank_zero_only, "rank", 0) == 0
    known = total is not None or hasattr(items, "__len__")
    return tqdm(items, title, total, delay=DELAY, disable=not shown, bar_format=None if known else "{desc} [{elapsed}]")
