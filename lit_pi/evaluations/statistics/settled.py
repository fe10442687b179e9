"""Whether an interval rests on many documents (or blocks of windows), or a few carry it.

An interval over a few is right as often as it says where losses spread alike, but nothing in it would show a document
that is unlike the others. So a figure is called unsettled, and no run better than another, where a few carry it.
"""

from collections.abc import Iterable

FEW = 8
"""With fewer documents in effect, an interval holds only if losses spread alike in all documents."""
FEWEST = 4
"""With fewer documents or blocks in effect, a figure is unsettled."""
LARGEST_SHARE = 0.8
"""A document or block that carries more of an interval's variance leaves a figure unsettled.

Of 8 documents of one length with normal losses one carries as much in 1 of 700 draws, of 20 real books in 1 of 15.
"""


def warnings(effective: Iterable[float | None]) -> list[str]:
    """Warn, in no sentence or one, of intervals over documents of which few are in effect.

    Args:
        effective: documents in effect of each interval, None where there is none.
    """
    fewest = min((count for count in effective if count is not None), default=FEW)
    if fewest >= FEW:
        return []
    return [
        f"Warning: {fewest:.1f} documents are in effect, fewer than {FEW}: intervals are right only if losses spread "
        "alike in all documents; measure more, or cut long ones (max_tokens)"
    ]


def unsettled(effective: float | None, largest_share: float | None, unit: str) -> str | None:
    """Say why a figure is not settled; None where it is, or where it has no interval.

    Args:
        effective: documents or blocks in effect.
        largest_share: the largest share of the variance that one of them carries.
        unit: what they are, in the singular.
    """
    if effective is None or largest_share is None:
        return None
    if effective < FEWEST:
        return f"{effective:.1f} {unit}s in effect, fewer than {FEWEST}"
    if largest_share > LARGEST_SHARE:
        return f"one {unit} carries {100 * largest_share:.0f} % of the variance"
    return None
