"""Protocols of the literature by name: windows, `<bos>`, joining and averaging at once.

A protocol whose windows score the tokens that the one before them did not hold is a `WindowPlan`'s; the others say
their windows here. A new protocol is a row in `PROTOCOLS`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from lit_pi.data.documents.joined import JoinedDocuments, join_texts, join_tokens
from lit_pi.data.store import TokenStore
from lit_pi.errors import UserError
from lit_pi.evaluations.perplexity.windows import Bos, Shape, Window, WindowPlan

ProtocolName = Literal["pi", "yarn", "yarn_2023", "longlora", "lm_eval", "hf_2023", "hf_now", "llama_cpp"]

LONGLORA_STRIDE = 256


class Read(NamedTuple):
    """A window.

    Attributes:
        length: positions that the model reads.
        scored: those of them whose next token is scored.
        begin: index of the window's first token in the document.
        bos: whether position 0 is `<bos>`, or what stands for it.
    """

    length: int
    scored: range
    begin: int
    bos: bool


class Protocol(NamedTuple):
    """A way in which perplexities of the literature were measured.

    Attributes:
        definition: its average, a key of `DEFINITIONS`.
        source: whose numbers it gives.
        stride: tokens from one window to the next; None where windows follow from the context length.
        any_stride: whether its users choose the stride, so that `stride` is only its default.
        bos: what stands before windows, where the tokenizer has `<bos>`; else nothing does.
        eos_for_bos: whether `<eos>` stands for `<bos>` where the tokenizer has none.
        join: makes one document of many; they stay apart where it is None.
        windows: from the tokens of a document, the context length and whether there is `<bos>`: its windows, where
            they are not those of a `WindowPlan`.
    """

    definition: str
    source: str
    stride: int | None = None
    any_stride: bool = False
    bos: Bos = "none"
    eos_for_bos: bool = False
    join: Callable[[TokenStore, NDArray[np.int64], PreTrainedTokenizerFast], JoinedDocuments] | None = None
    windows: Callable[[int, int, bool], Iterable[Read]] | None = None

    def plan(self, context_lengths: Sequence[int], stride: int | None, bos: Bos) -> WindowPlan:
        """Plan the windows.

        Args:
            context_lengths: positions of a window (tokens).
            stride: tokens from one window to the next; None only where windows follow from the context length.
            bos: its own rule, or `none` where there is no token for it.

        Raises:
            UserError: the stride is too large.
        """
        if self.windows is not None:
            return ProtocolWindows(context_lengths, bos, self.windows)
        assert stride is not None
        return WindowPlan(context_lengths, stride, bos)


class ProtocolWindows(WindowPlan):
    """The windows of a protocol that has its own; each context length has windows for itself alone.

    Args:
        context_lengths: positions of a window (tokens).
        bos: the protocol's rule.
        windows: the protocol's.
    """

    def __init__(
        self, context_lengths: Sequence[int], bos: Bos, windows: Callable[[int, int, bool], Iterable[Read]]
    ) -> None:
        super().__init__(context_lengths, 1, bos)
        self._windows = windows

    def group(self, tokens: Iterable[int]) -> dict[Shape, list[Window]]:
        """The windows of documents of so many tokens each, by shape, longest first."""
        groups: dict[Shape, list[Window]] = {}
        for document, total in enumerate(tokens):
            for length in self.context_lengths:
                for read in self._windows(total, length, self.bos != "none"):
                    shape = Shape(read.length, read.bos, ((length, read.scored),))
                    groups.setdefault(shape, []).append(Window(document, read.begin))
        return dict(sorted(groups.items(), key=lambda group: -group[0].length))

    def without(self, tokens: Iterable[int]) -> list[int]:
        """List the context lengths of which documents of so many tokens each have no window."""
        found = {length for shape in self.group(tokens) for length, _ in shape.positions}
        return [length for length in self.context_lengths if length not in found]


def first_window(tokens: int, length: int, bos: bool) -> Iterable[Read]:
    """A document cut to one window."""
    read = min(length, tokens + bos)
    yield Read(read, range(read - 1), 0, bos)


def whole_windows(tokens: int, length: int, bos: bool) -> Iterable[Read]:
    """Full windows that overlap and score all they hold, without the last one."""
    for begin in range(0, tokens - length, LONGLORA_STRIDE)[:-1]:
        yield Read(length, range(length - 1), begin, bos)


def rolling(tokens: int, length: int, bos: bool) -> Iterable[Read]:
    """Windows that predict as many tokens as they read, the last one moved back to full length."""
    for first in range(0, tokens, length):
        end = min(first + length, tokens)
        read = end if first == 0 else length
        yield Read(read, range(read - (end - first), read), max(0, end - length - 1), first == 0)


def second_halves(tokens: int, length: int, bos: bool) -> Iterable[Read]:
    """Chunks of a text that begins with `<bos>`, which replaces the first token of each; the second half is scored."""
    for chunk in range((tokens + bos) // length):
        yield Read(length, range(length // 2, length - 1), chunk * length, bos)


SLIDING = Protocol("token_weighted", "lit_pi", 256, any_stride=True, bos="every")
"""Measured where no protocol is named; `bos` is free there too."""

PROTOCOLS: dict[ProtocolName, Protocol] = {
    "pi": Protocol(
        "window_mean", "Chen et al. 2023, arXiv 2306.15595, tables 1 to 3; average inferred, <bos> as in YaRN's script",
        256, bos="every",
    ),
    "yarn": Protocol("window_mean", "Peng et al. 2023, arXiv 2309.00071, eval/perplexity.py", 256, bos="every"),
    "yarn_2023": Protocol(
        "mean_of_perplexities", "YaRN's eval/perplexity.py of 2023, commit 703ccbc", bos="every", windows=first_window,
    ),
    "longlora": Protocol(
        "window_mean", "Chen et al. 2023, arXiv 2309.12307, eval.py at batch size 1", LONGLORA_STRIDE,
        join=join_tokens, windows=whole_windows,
    ),
    "lm_eval": Protocol(
        "byte_perplexity", "lm-evaluation-harness, loglikelihood_rolling", bos="first", eos_for_bos=True,
        windows=rolling,
    ),
    "hf_2023": Protocol(
        "window_mean", "transformers, docs/perplexity until October 2024", 512, any_stride=True,
        join=partial(join_texts, separator="\n\n", special_tokens=True),
    ),
    "hf_now": Protocol(
        "shifted_labels", "transformers, docs/perplexity since October 2024 (#34387)", 512, any_stride=True,
        join=partial(join_texts, separator="\n\n", special_tokens=True),
    ),
    "llama_cpp": Protocol(
        "token_weighted", "llama.cpp, llama-perplexity without --ppl-stride", bos="every",
        join=partial(join_texts, separator="", special_tokens=False), windows=second_halves,
    ),
}  # fmt: skip


def named(name: ProtocolName, given: Mapping[str, Any]) -> Protocol:
    """Return the protocol of that name.

    Args:
        name: a key of `PROTOCOLS`.
        given: options that it may contradict, None where they were left out.

    Raises:
        UserError: there is no such protocol, or one of the options is not as it has it.
    """
    if name not in PROTOCOLS:
        raise UserError(f"there is no protocol {name}: name one of {', '.join(PROTOCOLS)}")
    protocol = PROTOCOLS[name]
    fixed: dict[str, Any] = {"bos": protocol.bos}
    if not protocol.any_stride:
        fixed["stride"] = protocol.stride
    if protocol.windows is not None:
        fixed |= dict.fromkeys(("num_windows", "precision", "disjoint"))
    for option, value in given.items():
        if option in fixed and value is not None and value != fixed[option]:
            has = "has none" if fixed[option] is None else f"fixes {fixed[option]}"
            raise UserError(f"{option} is {value}, where protocol {name} {has}: leave out one of them")
    return protocol
