"""Sliding evaluation windows: which tokens each window scores, for all context lengths at once.

A window of context length L that begins at token b holds the positions of `<bos>`, where it has one, and of the
document's next tokens, L in all. Windows begin at b = 0, S, 2S, ... (stride S) and score the tokens that the window
before them did not hold, up to the document's end: every token once per context length (Press et al. 2022,
arXiv 2108.12409, appendix B).

A shorter window is a prefix of a longer one, so at each b only the longest that is still needed is planned.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import ceil
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lit_pi.batches import Scheme, Span
from lit_pi.data.ranks import share_out
from lit_pi.errors import UserError

Bos = Literal["every", "first", "none"]
BOS: dict[Bos, str] = {
    "every": "<bos> before every window",
    "first": "<bos> before first windows",
    "none": "no <bos>",
}
"""The rules, as a person reads them."""


class Window(NamedTuple):
    """A window of a document.

    Attributes:
        document: index of the document, or -1 for a window that only fills up a batch.
        begin: index of the window's first token in the document.
    """

    document: int
    begin: int


FILLER = Window(-1, 0)


class Shape(NamedTuple):
    """The shape that the windows of one batch share.

    Attributes:
        length: positions, the shortest context length that serves all that are still needed.
        bos: whether position 0 is `<bos>`.
        positions: for each context length, the positions whose next token is scored.
        scheme: whether the windows overlap.
    """

    length: int
    bos: bool
    positions: tuple[tuple[int, range], ...]
    scheme: Scheme = "sliding"

    def scored(self) -> NDArray[np.int64]:
        """Positions whose next token is scored for some context length, ascending."""
        return np.unique(np.concatenate([np.array(positions, np.int64) for _, positions in self.positions]))

    def tokens(self, begin: int) -> list[slice]:
        """Which tokens of a document the window that begins there scores, for each context length."""
        shift = begin + 1 - self.bos
        return [slice(positions.start + shift, positions.stop + shift) for _, positions in self.positions]

    def spans(self) -> tuple[Span, ...]:
        """Which of `scored` belong to each context length."""
        scored = self.scored()
        ends = [np.searchsorted(scored, (positions.start, positions.stop)).tolist() for _, positions in self.positions]
        return tuple(
            Span(context_length, start, stop, self.scheme)
            for (context_length, _), (start, stop) in zip(self.positions, ends, strict=True)
        )


class WindowPlan:
    """The windows of documents.

    Args:
        context_lengths: positions of a window (tokens), ascending.
        stride: tokens from one window's begin to the next.
        bos: whether `<bos>` stands before every window, the document's first one, or none, where the document's
            first token is not scored.
        scheme: `disjoint` is a name for the largest stride, under which a window scores all that it holds.

    Raises:
        UserError: the stride is so large that tokens between windows would not be scored.
    """

    def __init__(self, context_lengths: Sequence[int], stride: int, bos: Bos, scheme: Scheme = "sliding") -> None:
        self.context_lengths = tuple(sorted(set(context_lengths)))
        self.stride = stride
        self.bos: Bos = bos
        self.scheme: Scheme = scheme
        if not self.context_lengths or self.context_lengths[0] < 2:
            raise UserError(f"context_lengths are {list(context_lengths)}: give at least one, each 2 tokens or more")
        largest = _largest_stride(self.context_lengths[0], bos)
        if not 1 <= stride <= largest:
            raise UserError(
                f"stride is {stride}: with context length {self.context_lengths[0]} and bos: {bos}, "
                f"it must be from 1 to {largest} tokens, so that no token is left unscored"
            )

    def disjoint(self) -> list["WindowPlan"]:
        """For each context length, windows that follow one another: each token is scored by the one that holds it.

        Without `<bos>` they share one token, which the second one needs to score its next. The last window of a
        document is as short as what is left (lm-eval moves it back instead).
        """
        return [
            WindowPlan([length], _largest_stride(length, self.bos), self.bos, "disjoint")
            for length in self.context_lengths
        ]

    def disjoint_holding(self, windows: dict[Shape, list[Window]], tokens: Sequence[int]) -> dict[Shape, list[Window]]:
        """The disjoint windows, by shape, of documents of so many tokens each that hold what the given ones score."""
        scored = [np.zeros(length, bool) for length in tokens]
        for shape, given in windows.items():
            for document, begin in given:
                for part in shape.tokens(begin):
                    scored[document][part] = True

        def holds(shape: Shape, window: Window) -> bool:
            return any(scored[window.document][part].any() for part in shape.tokens(window.begin))

        return {
            shape: found
            for plan in self.disjoint()
            for shape, group in plan.group(tokens).items()
            if (found := [window for window in group if holds(shape, window)])
        }

    def bounds(self, context_length: int, tokens: int) -> NDArray[np.int64]:
        """Where in a document the windows' scored tokens begin: window k scores tokens `[bounds[k], bounds[k + 1])`.

        Args:
            context_length: one of the plan's.
            tokens: tokens of the document.
        """
        numbers = np.arange(self.count(context_length, tokens), dtype=np.int64)
        ends = np.minimum(self._end(context_length, numbers), tokens)
        return np.concatenate(([int(self.bos == "none")], ends))

    def windows(self, document: int, tokens: int) -> Iterable[tuple[Shape, Window]]:
        """The windows of a document of so many tokens, in order."""
        counts = [self.count(length, tokens) for length in self.context_lengths]
        for number in range(counts[0]):
            needed = [length for length, count in zip(self.context_lengths, counts, strict=True) if number < count]
            length = next((length for length in needed if self._end(length, number) >= tokens), needed[-1])
            yield self._shape(length, number), Window(document, number * self.stride)

    def group(self, tokens: Iterable[int]) -> dict[Shape, list[Window]]:
        """The windows of documents of so many tokens each, by shape, longest first."""
        groups: dict[Shape, list[Window]] = defaultdict(list)
        for document, length in enumerate(tokens):
            for shape, window in self.windows(document, length):
                groups[shape].append(window)
        return dict(sorted(groups.items(), key=lambda group: -group[0].length))

    def _has_bos(self, number: Any) -> Any:  # of one window, or of an array of them
        return (self.bos == "every") | ((self.bos == "first") & (number == 0))

    def _end(self, length: int, number: Any) -> Any:
        """The token after the last one that a window, or each of an array of windows, holds."""
        return number * self.stride + length - self._has_bos(number)

    def count(self, length: int, tokens: int) -> int:
        """Windows of a context length that a document of so many tokens has."""
        if self._end(length, 0) >= tokens:
            return 1
        return 1 + max(1, ceil((tokens - self._end(length, 1)) / self.stride) + 1)

    def _shape(self, length: int, number: int) -> Shape:
        bos, begin = self._has_bos(number), number * self.stride
        positions = []
        for context_length in self.context_lengths:
            first_token = self._end(context_length, number - 1) if number else int(not bos)
            start = first_token - begin - 1 + bos  # the position before a token predicts it
            if scored := range(start, min(context_length, length) - 1):
                positions.append((context_length, scored))
        return Shape(length, bos, tuple(positions), self.scheme)


def _largest_stride(context_length: int, bos: Bos) -> int:
    """Tokens from one window to the next with which none between them is left unscored."""
    return context_length - (2 if bos == "first" else 1)


def plan_batches(
    groups: dict[Shape, list[Window]], batch_size: int, world_size: int
) -> list[tuple[Shape, tuple[Window, ...]]]:
    """Batches of one shape each, filled up so that every `world_size` consecutive ones are equally large.

    Rank r takes every `world_size`-th batch from the r-th on, so all ranks run forwards of the same shapes.
    """
    return [
        (shape, tuple(rows))
        for shape, windows in groups.items()
        for rows in share_out(windows, FILLER, batch_size, world_size)
    ]
