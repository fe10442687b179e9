"""95 % intervals of shares, of the difference of two shares of the same questions, and of means over documents."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from scipy.stats import t as student

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


def cluster_mean(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[float, float | None, float | None]:
    """Mean of values that come in clusters, and its 95 % interval over clusters.

    The mean is the ratio of the clusters' sums to their sizes, its variance the linearised one of a ratio (Cochran
    1977, Sampling Techniques, section 6.3), the quantile Student's with one degree of freedom less than clusters.

    Args:
        values: to be averaged.
        clusters: which of them belong together, such as several summaries of one document.

    Returns:
        Mean, lower and upper end; no ends for a single cluster.
    """
    places = {cluster: place for place, cluster in enumerate(dict.fromkeys(clusters))}
    members = [places[cluster] for cluster in clusters]
    sums, sizes = np.bincount(members, values), np.bincount(members)
    mean, n = float(sums.sum() / sizes.sum()), len(places)
    if n < 2:
        return mean, None, None
    variance = n / (n - 1) * float(((sums - mean * sizes) ** 2).sum()) / float(sizes.sum()) ** 2
    half = float(student.ppf(0.975, n - 1)) * math.sqrt(variance)
    return mean, mean - half, mean + half
