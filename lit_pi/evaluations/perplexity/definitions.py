"""The field's definitions of perplexity: each definition says what one window contributes.

All are ratios of sums over windows, sum(y) / sum(x) in nats or bits, so that documents and windows may be sampled.
A new definition is a function and a row in `DEFINITIONS`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lit_pi.batches import Scheme

Floats = NDArray[np.float64]


def sum_by(document: NDArray[np.int64], values: NDArray, documents: int) -> Floats:
    """Sums of windows' values by document, `[documents]`."""
    return np.bincount(document, values, documents).astype(np.float64)


class WindowSums(NamedTuple):
    """Sums over the scored tokens of each window of one series; every array is `[windows]`.

    Attributes:
        document: index of the window's document.
        number: place of the window in its document.
        tokens: how many it scores.
        nll: nats of them; 0 where the window was not run.
        common_tokens: how many of them lie where every context length has its full context.
        common_nll: nats of those.
        document_tokens: tokens that all windows of its document score.
        bytes: UTF-8 bytes of the scored tokens, or None where they are not known.
        run: whether the window was run.
    """

    document: NDArray[np.int64]
    number: NDArray[np.int64]
    tokens: Floats
    nll: Floats
    common_tokens: Floats
    common_nll: Floats
    document_tokens: Floats
    bytes: Floats | None
    run: NDArray[np.bool_]


class Definition(NamedTuple):
    """A definition of perplexity.

    Attributes:
        contribution: y and x of every window.
        label: what a table calls it.
        meaning: what it is, in a few words for those who read the table.
        exponential: whether the figure is exp(sum(y) / sum(x)); else it is the ratio itself.
        scheme: which windows it is of.
        asked: whether it is derived only where a protocol asks for it.
    """

    contribution: Callable[[WindowSums], tuple[Floats, Floats]]
    label: str
    meaning: str
    exponential: bool = True
    scheme: Scheme = "sliding"
    asked: bool = False


def token_weighted(windows: WindowSums) -> tuple[Floats, Floats]:
    """Mean over all tokens of all documents (Press et al. 2022, arXiv 2108.12409, appendix B)."""
    return windows.nll, windows.tokens


def window_mean(windows: WindowSums) -> tuple[Floats, Floats]:
    """Mean over windows of their means: a document's first window counts no more than one of `stride` tokens.

    The Hugging Face recipe of 2023 and YaRN's, and what the tables of Chen et al. 2023 (1 to 3) imply.
    """
    return _mean(windows.nll, windows.tokens), (windows.tokens > 0).astype(np.float64)


def document_mean(windows: WindowSums) -> tuple[Floats, Floats]:
    """Mean over documents of their means."""
    return _mean(windows.nll, windows.document_tokens), _mean(windows.tokens, windows.document_tokens)


def common_tokens(windows: WindowSums) -> tuple[Floats, Floats]:
    """Mean over the tokens at document positions of at least the longest context length less the stride.

    They are the same tokens at every context length, and have all the context that it gives: a curve that falls is
    evidence of context used.
    """
    return windows.common_nll, windows.common_tokens


def bits_per_byte(windows: WindowSums) -> tuple[Floats, Floats]:
    """Bits over the UTF-8 bytes of the scored tokens, which compares models of different tokenizers."""
    assert windows.bytes is not None
    return windows.nll / np.log(2), windows.bytes


def truncate(windows: WindowSums) -> tuple[Floats, Floats]:
    """Mean over documents of the mean of their first window, as if they ended there (YaRN's figures)."""
    first = (windows.number == 0) & (windows.tokens > 0)
    return np.where(first, _mean(windows.nll, windows.tokens), 0.0), first.astype(np.float64)


def mean_of_perplexities(windows: WindowSums) -> tuple[Floats, Floats]:
    """Arithmetic mean over documents of the perplexities of their first windows (YaRN's script of 2023)."""
    mean, first = truncate(windows)
    return np.where(first > 0, np.exp(mean), 0.0), first


def shifted_labels(windows: WindowSums) -> tuple[Floats, Floats]:
    """Mean over windows of their means, each weighted by its labels less one (the Hugging Face recipe since 2024).

    Of the first window the model's shift drops a label; of the others it drops one that is context anyway.
    """
    weight = np.where(windows.number == 0, windows.tokens, windows.tokens - 1)
    return _mean(windows.nll, windows.tokens) * weight, weight


def byte_perplexity(windows: WindowSums) -> tuple[Floats, Floats]:
    """Exponential of the nats over the UTF-8 bytes of the scored tokens."""
    assert windows.bytes is not None
    return windows.nll, windows.bytes


DEFINITIONS = {
    "token_weighted": Definition(token_weighted, "perplexity", "the mean over all tokens"),
    "window_mean": Definition(window_mean, "mean of windows", "windows count alike, however few tokens they score"),
    "document_mean": Definition(document_mean, "mean of documents", "every document counts alike"),
    "common_tokens": Definition(
        common_tokens, "common tokens", "only tokens that have the full context at every context length"
    ),
    "truncate": Definition(truncate, "first windows (truncate)", "documents cut to their first window"),
    "disjoint": Definition(
        token_weighted, "disjoint windows", "windows that do not overlap, so that most tokens have less context",
        scheme="disjoint",
    ),
    "bits_per_byte": Definition(
        bits_per_byte, "bits per byte", "over bytes of text, to compare tokenizers", exponential=False
    ),
    "mean_of_perplexities": Definition(
        mean_of_perplexities, "mean of perplexities", "arithmetic, of documents' first windows", exponential=False,
        asked=True,
    ),
    "shifted_labels": Definition(
        shifted_labels, "weighted by shifted labels", "windows weighted by their labels less one", asked=True
    ),
    "byte_perplexity": Definition(byte_perplexity, "byte perplexity", "over bytes of text", asked=True),
}  # fmt: skip
"""By name; `token_weighted` is what is meant where none is named."""
OF_BYTES = ("bits_per_byte", "byte_perplexity")
"""Those that need the bytes of tokens."""


def _mean(total: Floats, count: Floats) -> Floats:
    return np.divide(total, count, out=np.zeros_like(total), where=count > 0)
