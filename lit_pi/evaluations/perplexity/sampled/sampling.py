"""A sample of the windows that estimates what all of them would give, without bias.

Each document's first window is always run: it scores most of the tokens that have little context. Of the others, in
the order of documents and places, every block of neighbours gives two, drawn without replacement. What a window is
expected to hold is known without running it, so only its deviation from that is estimated (difference estimator;
Cochran 1977, Sampling Techniques, sections 5.3, 5A.12 and 7.1): the closer it is, the fewer windows are needed.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lit_pi.evaluations.perplexity.definitions import sum_by

PER_BLOCK = 2


class Totals(NamedTuple):
    """Sums over the windows of each document.

    Attributes:
        y: estimated numerators `[documents]`.
        x: exact denominators `[documents]`.
        errors: what each block's two windows tell of the error of sum(y), whose variance is the sum of their squares
            `[blocks]`; empty where all windows were run. Those of two series are of the same blocks, so that the
            error of a difference is their difference.
    """

    y: NDArray[np.float64]
    x: NDArray[np.float64]
    errors: NDArray[np.float64]


class WindowSample:
    """Which windows are run.

    Args:
        counts: windows of each document.
        num_windows: windows to draw beside each document's first one; rounded up to an even number.
        seed: chooses them; nothing else does.

    Attributes:
        units: windows beside first ones.
        chosen: which of them are run.
        complete: whether all are.
        sizes: windows of each block.
    """

    def __init__(self, counts: NDArray[np.int64], num_windows: int, seed: int) -> None:
        others = counts - 1
        self._first = np.concatenate(([0], np.cumsum(others)))
        self.units = int(self._first[-1])
        blocks = -(-num_windows // PER_BLOCK)
        self.complete = PER_BLOCK * blocks >= self.units
        edges = np.arange(blocks + 1) * self.units // max(blocks, 1)
        self.chosen = np.ones(self.units, bool)
        self._block = np.zeros(self.units, np.int64)
        self.sizes = sizes = np.diff(edges)
        if self.complete:
            return
        self._block = np.repeat(np.arange(blocks), sizes)
        draws = np.random.default_rng(seed).random((2, blocks))
        one, other = (draws[0] * sizes).astype(np.int64), (draws[1] * (sizes - 1)).astype(np.int64)
        other += other >= one
        self.chosen[:] = False
        self.chosen[edges[:-1] + one] = self.chosen[edges[:-1] + other] = True

    @property
    def num_windows(self) -> int:
        """Windows drawn."""
        return int(self.chosen.sum())

    def includes(self, document: NDArray[np.int64], number: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether windows are run, by document and by their number in it."""
        found = number == 0
        found[~found] = self.chosen[self._unit(document, number)[~found]]
        return found

    def weights(self, document: NDArray[np.int64], number: NDArray[np.int64]) -> NDArray[np.float64]:
        """How many windows each stands for, by document and by its number in it; 0 for those that are not run."""
        found = self.includes(document, number).astype(np.float64)
        if not self.complete:
            drawn = (number > 0) & (found > 0)
            found[drawn] = self.sizes[self._block[self._unit(document, number)[drawn]]] / PER_BLOCK
        return found

    def totals(
        self,
        y: NDArray[np.float64],
        expected: NDArray[np.float64],
        x: NDArray[np.float64],
        document: NDArray[np.int64],
        number: NDArray[np.int64],
        documents: int,
    ) -> Totals:
        """Estimate the sums over all windows.

        Args:
            y: numerator of each window; of those that were not run it is ignored.
            expected: y of each window, known without looking at the windows that were drawn.
            x: denominator of each window.
            document: document of each window.
            number: place of each window in its document.
            documents: how many there are.
        """
        weight, known = self.weights(document, number), np.where(number == 0, 0.0, expected)
        deviation = np.where(weight > 0, y - known, 0.0)
        totals_y = sum_by(document, weight * deviation + known, documents)
        totals_x = sum_by(document, x, documents)
        errors = np.empty(0) if self.complete else self.errors(deviation, document, number)
        return Totals(totals_y, totals_x, errors)

    def errors(
        self, deviation: NDArray[np.float64], document: NDArray[np.int64], number: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Each block's part in the error of a sum over all windows, from its two windows; `[blocks]`."""
        one, other = self._pairs(deviation, document, number)
        # Of a block of N windows, 2 of which give d1 and d2: N^2 (1 - 2 / N) s^2 / 2, with s^2 = (d1 - d2)^2 / 2.
        with np.errstate(invalid="ignore"):  # of infinite losses
            return np.sqrt(self.sizes * (self.sizes - PER_BLOCK)) * (one - other) / 2

    def _pairs(
        self, deviation: NDArray[np.float64], document: NDArray[np.int64], number: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """By how much each block's two windows deviate, `[2, blocks]`; 0 where a context length has no such window."""
        later = number > 0
        units = np.zeros(self.units)
        units[self._unit(document, number)[later]] = deviation[later]
        return units[self.chosen].reshape(-1, PER_BLOCK).T

    def _unit(self, document: NDArray[np.int64], number: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._first[document] + number - 1
