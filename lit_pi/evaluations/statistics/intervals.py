"""95 % intervals of shares, and of the difference of two shares of the same questions."""

import math

Z = 1.959963984540054
"""Standard normal quantile of a two-sided 95 % interval."""


def wilson(correct: int, n: int) -> tuple[float, float]:
    """95 % score interval of a share of `n` (Wilson 1927)."""
    share, ratio = correct / n, Z * Z / n
    centre = (share + ratio / 2) / (1 + ratio)
    half = math.sqrt(share * (1 - share) * ratio + ratio * ratio / 4) / (1 + ratio)
    # At the ends they are 0 and 1 but for rounding.
    return (centre - half if correct else 0.0), (centre + half if correct < n else 1.0)


def newcombe(both: int, only_first: int, only_second: int, neither: int) -> tuple[float, float]:
    """95 % interval of the second share less the first, where both are of the same things.

    Newcombe 1998 (Statistics in Medicine 17, 2635-2650), method 10: Wilson's intervals of the two shares, joined by
    their correlation.

    Args:
        both: things that count for both shares.
        only_first: for the first alone.
        only_second: for the second alone.
        neither: for none.
    """
    n = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    (low1, high1), (low2, high2) = wilson(first, n), wilson(second, n)
    share1, share2 = first / n, second / n
    product = first * (n - first) * second * (n - second)
    covariance = float(both * neither - only_first * only_second)
    if covariance > 0:
        covariance = max(covariance - n / 2, 0.0)
    phi = covariance / math.sqrt(product) if product else 0.0

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(one * one - 2 * phi * one * other + other * other, 0.0))

    difference = share2 - share1
    return difference - reach(share2 - low2, high1 - share1), difference + reach(high2 - share2, share1 - low1)
