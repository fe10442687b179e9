"""95 % intervals of means over documents: tokens of one document are not independent, documents are.

Every figure here is a ratio of sums over documents, sum(y) / sum(x). Its interval is that of the linearised estimator
(Cochran 1977, Sampling Techniques, section 6.4), with Student's quantile.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

FEW_DOCUMENTS = 20
"""With fewer, intervals over documents are too narrow where documents differ much in length or in loss."""


class Estimate(NamedTuple):
    """A figure and its 95 % interval, each `[...]`; the interval is NaN where there are not two documents.

    Attributes:
        value: the figure.
        low: lower end of its interval.
        high: upper end.
    """

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def ratio(y: NDArray[np.float64], x: NDArray[np.float64]) -> Estimate:
    """sum(y) / sum(x), where documents were drawn from many more.

    Args:
        y: `[..., documents]`.
        x: `[..., documents]`, 0 for documents that do not take part.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        value = y.sum(-1) / x.sum(-1)
        return _around(value, _residuals(y, x, value), x)


def cluster_mean(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[float, float | None, float | None]:
    """Mean of values of which each document has some, such as its summaries, and its interval over documents.

    Args:
        values: values to be averaged.
        clusters: which document each is of.

    Returns:
        Mean, lower and upper end; no ends for a single document.
    """
    places = {cluster: place for place, cluster in enumerate(dict.fromkeys(clusters))}
    members = [places[cluster] for cluster in clusters]
    sums, sizes = np.bincount(members, values), np.bincount(members)
    found = ratio(sums.astype(np.float64), sizes.astype(np.float64))
    if len(places) < 2:
        return float(found.value), None, None
    return float(found.value), float(found.low), float(found.high)


def ratio_difference(first: NDArray[np.float64], second: NDArray[np.float64], x: NDArray[np.float64]) -> Estimate:
    """sum(first) / sum(x) less sum(second) / sum(x), where both are of the same documents.

    Args:
        first: `[..., documents]`.
        second: `[..., documents]`.
        x: `[..., documents]`, 0 for documents that do not take part.
    """
    with np.errstate(invalid="ignore"):
        return ratio(first - second, x)


def _residuals(y: NDArray[np.float64], x: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.float64]:
    return (y - value[..., None] * x) / x.sum(-1)[..., None]


def _around(value: NDArray[np.float64], residuals: NDArray[np.float64], x: NDArray[np.float64]) -> Estimate:
    n = (x > 0).sum(-1)
    variance = n / (n - 1) * np.square(residuals).sum(-1)
    half = student.ppf(0.975, np.maximum(n - 1, 1)) * np.sqrt(np.where(n > 1, variance, np.nan))
    return Estimate(value, value - half, value + half)
