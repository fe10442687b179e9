"""Both intervals of a figure: over documents, and of all windows where some were drawn."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from lit_pi.evaluations.statistics.block_intervals import SamplingError
from lit_pi.evaluations.statistics.document_intervals import Figure
from lit_pi.evaluations.statistics.settled import unsettled


@dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """Intervals of 95 % and what they rest on; None where there is none.

    Attributes:
        low: lower end of the interval over documents, if there are two or more.
        high: upper end.
        effective_documents: documents in effect: as many of equal length would give as narrow an interval.
        largest_share: the largest share of the variance that one document carries.
        sampling_low: lower end of the interval of what all windows would give, if some were drawn.
        sampling_high: upper end.
        effective_blocks: blocks of windows in effect.
        largest_block_share: the largest share of the sampling variance that one block carries.
    """

    low: float | None = None
    high: float | None = None
    effective_documents: float | None = None
    largest_share: float | None = None
    sampling_low: float | None = None
    sampling_high: float | None = None
    effective_blocks: float | None = None
    largest_block_share: float | None = None

    @property
    def sampling_unsettled(self) -> str | None:
        """The reason where a few blocks carry what the windows that were drawn say of all."""
        return unsettled(self.effective_blocks, self.largest_block_share, "block")


def uncertainty(
    figure: Figure, sampling: SamplingError | None, x: float, shown: Callable[[float], float] = float
) -> Uncertainty:
    """Both intervals of a ratio of sums, and what they rest on.

    Args:
        figure: the ratio and its interval over documents.
        sampling: the error of its numerator, where windows were drawn.
        x: its denominator.
        shown: turns a ratio, and so its ends, into what is reported.
    """

    def end(value: float | None) -> float | None:
        known = None if value is None else shown(value)
        return known if known is not None and math.isfinite(known) else None

    half = math.nan if sampling is None else sampling.half_width / x
    return Uncertainty(
        low=end(figure.low),
        high=end(figure.high),
        effective_documents=figure.effective_documents,
        largest_share=figure.largest_share,
        sampling_low=end(figure.value - half),
        sampling_high=end(figure.value + half),
        effective_blocks=None if sampling is None else sampling.effective_blocks,
        largest_block_share=None if sampling is None else sampling.largest_share,
    )
