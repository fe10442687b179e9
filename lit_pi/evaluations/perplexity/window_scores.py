"""Losses summed by window, for windows that may score a token more than once."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lit_pi.batches import IGNORE, Span
from lit_pi.evaluations.perplexity.definitions import Floats, WindowSums, sum_by


class WindowLosses(NamedTuple):
    """The windows of one context length that were run, in the order of documents and places; arrays are `[windows]`.

    Attributes:
        document: index of the window's document.
        tokens: how many it scores.
        nll: nats of them, infinite where the model's loss was not a number.
    """

    document: NDArray[np.int64]
    tokens: NDArray[np.int64]
    nll: Floats

    def sums(self, document_bytes: Sequence[float] | None) -> WindowSums:
        """Return what definitions ask of windows.

        Args:
            document_bytes: UTF-8 bytes of each document, which its first window takes; None where they are not known.
        """
        first = np.searchsorted(self.document, self.document)
        number = np.arange(len(self.document)) - first
        tokens, none = self.tokens.astype(np.float64), np.zeros(len(self.document))
        taken = None if document_bytes is None else np.where(number == 0, np.array(document_bytes)[self.document], 0.0)
        whole = sum_by(self.document, tokens, int(self.document.max()) + 1)[self.document]
        return WindowSums(self.document, number, tokens, self.nll, none, none, whole, taken, none == 0)


class WindowScores(Metric):
    """Gathers what windows score, on any number of ranks, in any order and batches."""

    full_state_update = False
    nll: list[Tensor]
    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("nll", [], dist_reduce_fx="cat")
        self.add_state("rows", [], dist_reduce_fx="cat")

    def update(
        self,
        spans: Sequence[Span],
        token_nll: Sequence[Float[Tensor, "batch span"]],
        targets: Int[Tensor, "batch scored"],
        scored: Int[Tensor, " scored"],
        documents: Int[Tensor, " batch"],
        begins: Int[Tensor, " batch"],
    ) -> None:
        """Add a batch, as `TokenScores.update` does."""
        for span, nll in zip(spans, token_nll, strict=True):
            counts = (targets[:, span.start : span.stop] != IGNORE).sum(dim=1)
            length = torch.full_like(counts, span.context_length)
            self.rows.append(torch.stack((length, documents, begins, counts), dim=1))
            self.nll.append(nll.sum(dim=1, dtype=torch.float64))

    def compute(self) -> dict[int, WindowLosses]:
        """Return the windows of each context length, ascending."""
        nll, rows = dim_zero_cat(self.nll).cpu().numpy(), dim_zero_cat(self.rows).cpu().numpy()
        order = np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))
        nll, rows = np.where(np.isnan(nll), np.inf, nll)[order], rows[order]
        found = {}
        for length in np.unique(rows[:, 0]).tolist():
            of = (rows[:, 0] == length) & (rows[:, 1] >= 0)
            found[length] = WindowLosses(rows[of, 1], rows[of, 3], nll[of])
        return found
