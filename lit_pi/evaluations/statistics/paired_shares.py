"""Two runs that got the same things right or wrong, one by one."""

from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import binomtest

from lit_pi.evaluations.statistics.intervals import newcombe


class PairedShares(NamedTuple):
    """The gain of another run over a baseline.

    Attributes:
        n: things that both were asked.
        baseline: share that the baseline has right.
        other: share that the other run has right.
        difference: `other - baseline`.
        low: lower end of its 95 % interval (Newcombe 1998, method 10).
        high: upper end.
        only_baseline: things that only the baseline has right.
        only_other: things that only the other run has right.
        p: two-sided, that of these each is as likely as the other (McNemar's exact test).
    """

    n: int
    baseline: float
    other: float
    difference: float
    low: float
    high: float
    only_baseline: int
    only_other: int
    p: float


def paired_shares(pairs: Sequence[tuple[bool, bool]]) -> PairedShares:
    """Compare what the baseline and the other run have right, of one thing or more."""
    n = len(pairs)
    both, only_first, only_second, neither = (
        pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))
    )
    low, high = newcombe(both, only_first, only_second, neither)
    differ = only_first + only_second
    return PairedShares(
        n=n,
        baseline=(both + only_first) / n,
        other=(both + only_second) / n,
        difference=(only_second - only_first) / n,
        low=low,
        high=high,
        only_baseline=only_first,
        only_other=only_second,
        p=float(binomtest(only_second, differ).pvalue) if differ else 1.0,
    )
