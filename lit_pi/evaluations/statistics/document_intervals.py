"""95 % intervals of means over documents: tokens of one document are not independent, documents are.

Every figure here is a ratio of sums over documents, sum(y) / sum(x). Its standard error is that of the jackknife, which
leaves out one document at a time (Cochran 1977, Sampling Techniques, section 6.17). Student's quantile has as many
degrees of freedom as there are documents in effect, (sum x)^2 / sum(x^2) (Kish 1965, Survey Sampling, section 11.2C),
less one: where a few documents are much longer than the others, the error is known only as well as these few tell.

Real books differ by a long tail: a few are unlike the others. Student's interval is then too short on the tail's side,
which reaches as far as Hall's transformation says instead (1992, Journal of the Royal Statistical Society B 54,
221-228); the other side stays.
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from lit_pi.evaluations.statistics.settled import FEW, unsettled

LEAST = 1.5
"""With fewer documents in effect, Student's interval reaches so far that it says nothing, and there is none."""

SKEWEST = 0.3
"""Skewness of the error beyond which the tail's side reaches no further: 1.4 times as far as Student's quantile."""


class Figure(NamedTuple):
    """A figure and its 95 % interval, which it has where 1.5 documents or more are in effect.

    Attributes:
        value: the figure.
        low: lower end of its interval.
        high: upper end.
        effective_documents: documents in effect: as many of equal length would give as narrow an interval.
        largest_share: the largest share of the variance that one document carries.
    """

    value: float
    low: float | None
    high: float | None
    effective_documents: float | None
    largest_share: float | None

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def tells(self) -> bool:
        """Whether the interval excludes zero, and many documents carry it."""
        return self.excludes_zero and self.unsettled is None

    @property
    def unsettled(self) -> str | None:
        """The reason where a few documents carry the interval."""
        return unsettled(self.effective_documents, self.largest_share, "document")


class Estimate(NamedTuple):
    """Figures and their 95 % intervals, each `[...]`; NaN is what is not known, as the interval of one document.

    Attributes:
        value: the figure.
        low: lower end of its interval.
        high: upper end.
        effective: documents in effect.
        largest_share: the largest share of the variance that one document carries.
    """

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    effective: NDArray[np.float64]
    largest_share: NDArray[np.float64]

    def figure(self) -> Figure:
        """The only figure of a shape without dimensions."""
        value, *rest = (float(part) for part in self)
        return Figure(value, *(part if math.isfinite(part) else None for part in rest))


def ratio(y: NDArray[np.float64], x: NDArray[np.float64]) -> Estimate:
    """sum(y) / sum(x), where documents were drawn from many more.

    Args:
        y: `[..., documents]`.
        x: `[..., documents]`, 0 for documents that do not take part.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        value = y.sum(-1) / x.sum(-1)
        weight = x / x.sum(-1, keepdims=True)
        # By how much the ratio changes when a document is left out.
        changes = (y / x.sum(-1, keepdims=True) - value[..., None] * weight) / (1 - weight)
        squares = np.square(changes)
        n, total = (x > 0).sum(-1), squares.sum(-1)
        effective = np.where(n > 1, 1 / np.square(weight).sum(-1), np.nan)
        freedom = np.where(effective >= LEAST, effective - 1, np.nan)
        error, quantile = np.sqrt((n - 1) / n * total), student.ppf(0.975, freedom)
        # Of few documents the skewness is not known.
        skewness = np.where((effective >= FEW) & (total > 0), (changes**3).sum(-1) / total**1.5, 0.0)
        below, above = _reach(quantile, -skewness), _reach(quantile, skewness)
        # Documents that do not differ at all carry alike.
        share = np.where(total > 0, squares.max(-1) / total, np.where(n > 1, 1 / n, np.nan))
        return Estimate(value, value - below * error, value + above * error, effective, share)


def _reach(quantile: NDArray[np.float64], skewness: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many standard errors the side reaches towards which the error is skewed, or the other one."""
    tail = np.clip(skewness, 1e-6, SKEWEST)
    return np.where(skewness > 0, 3 / tail * (1 - np.cbrt(1 - tail * (quantile + tail / 6))), quantile)


def ratio_difference(first: NDArray[np.float64], second: NDArray[np.float64], x: NDArray[np.float64]) -> Estimate:
    """sum(first) / sum(x) less sum(second) / sum(x), where both are of the same documents.

    Args:
        first: `[..., documents]`.
        second: `[..., documents]`.
        x: `[..., documents]`, 0 for documents that do not take part.
    """
    with np.errstate(invalid="ignore"):
        return ratio(first - second, x)


def cluster_mean(values: Sequence[float], clusters: Sequence[Hashable]) -> Figure:
    """Mean of values of which each document has some, such as its summaries, and its interval over documents.

    Args:
        values: values to be averaged.
        clusters: which document each is of.
    """
    places = {cluster: place for place, cluster in enumerate(dict.fromkeys(clusters))}
    members = [places[cluster] for cluster in clusters]
    sums, sizes = np.bincount(members, values), np.bincount(members)
    return ratio(sums.astype(np.float64), sizes.astype(np.float64)).figure()
