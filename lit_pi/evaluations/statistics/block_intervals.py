"""95 % intervals of sums over all windows, of which each block of neighbours gave two.

Blocks spread unequally, so that the variance of a sum rests on those that spread most. Student's quantile has
Satterthwaite's degrees of freedom over blocks (1946, Biometrics Bulletin 2, 110-114). The square of a variance that is
estimated from one degree of freedom is three times too large on average, so that they are 3 (sum v)^2 / sum(v^2) - 2:
as many as blocks where these spread equally, and 1 where one block carries all.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student


class SamplingError(NamedTuple):
    """How far a sum over drawn windows may be from that of all windows.

    Attributes:
        half_width: half of its 95 % interval.
        effective_blocks: blocks in effect, which are the degrees of freedom.
        largest_share: the largest share of the variance that one block carries.
    """

    half_width: float
    effective_blocks: float
    largest_share: float


def sampling_error(errors: NDArray[np.float64]) -> SamplingError | None:
    """Interval of a sum from the `errors` of its blocks; None where nothing was drawn, or losses are infinite."""
    variances = np.square(errors)
    total = float(variances.sum())
    if not 0 < total < np.inf:
        return None
    effective = min(max(3 * total**2 / float(np.square(variances).sum()) - 2, 1.0), float(len(errors)))
    half = float(student.ppf(0.975, effective)) * total**0.5
    return SamplingError(half, effective, float(variances.max()) / total)
