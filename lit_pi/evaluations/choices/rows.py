"""The options of questions as rows of tokens: context, option, and where the scored tokens begin."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from lit_pi.data.tokenizer import plain_backend
from lit_pi.errors import UserError
from lit_pi.evaluations.choices.scores import ChoiceQuestion
from lit_pi.evaluations.choices.tasks.task import Question
from lit_pi.progress import progress

Tokens = NDArray[np.int32]

QUESTIONS_AT_ONCE = 256
"""Questions encoded in one call, which spreads their texts over the cores."""


class Row(NamedTuple):
    """One option after its context.

    Attributes:
        tokens: `<bos>`, where the tokenizer has it, context and option.
        start: place of the first token that is scored; all from there on are.
    """

    tokens: Tokens
    start: int


class RowEncoder:
    """Encodes each option together with its context, as it would be written.

    The scored tokens are those after the longest common prefix with the context alone. A tokenizer may join the
    context's end with one option's beginning: then all options of that context are scored from there, so that they
    stay comparable.

    Args:
        tokenizer: any of the `tokenizers` library; settings that calls of it have left behind do not matter.
        answer_context: what stands before an option to score it without its question, or None.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, answer_context: str | None) -> None:
        self.rows: list[Row] = []
        self._backend = plain_backend(tokenizer)
        self._name = tokenizer.name_or_path
        self._bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        self._answer_context = answer_context
        self._places: dict[tuple[bytes, int], int] = {}

    def encode(self, questions: Sequence[Question]) -> Iterator[ChoiceQuestion]:
        """The questions, whose options' rows are added to `rows`; what is scored twice has one row.

        Raises:
            UserError: an option has no token to score, or none before it.
        """
        starts = range(0, len(questions), QUESTIONS_AT_ONCE)
        for start in progress("Tokenizing questions", starts):
            some = questions[start : start + QUESTIONS_AT_ONCE]
            texts = list(dict.fromkeys(text for question in some for text in self._texts(question)))
            encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
            ids = {
                text: np.array(self._bos + encoding.ids, np.int32)
                for text, encoding in zip(texts, encodings, strict=True)
            }
            for question in some:
                yield self._question(question, ids)

    def _texts(self, question: Question) -> Iterator[str]:
        for contexts in self._contexts(question):
            for context, option in zip(contexts, question.options, strict=True):
                yield from (context, context + option)

    def _contexts(self, question: Question) -> list[Sequence[str]]:
        alone = [] if self._answer_context is None else [[self._answer_context] * len(question.options)]
        return [question.contexts, *alone]

    def _question(self, question: Question, ids: dict[str, Tokens]) -> ChoiceQuestion:
        rows = [self._rows(question, contexts, ids) for contexts in self._contexts(question)]
        options = [option.strip() for option in question.options]
        return ChoiceQuestion(
            id=question.id,
            answer=question.answer,
            rows=rows[0],
            alone=rows[1] if len(rows) > 1 else (),
            characters=tuple(len(option) for option in options),
            bytes=tuple(len(option.encode()) for option in options),
            tokens=tuple(len(self.rows[row].tokens) - self.rows[row].start for row in rows[0]),
        )

    def _rows(self, question: Question, contexts: Sequence[str], ids: dict[str, Tokens]) -> tuple[int, ...]:
        starts: dict[str, int] = {}
        for context, option in zip(contexts, question.options, strict=True):
            same = _common_prefix(ids[context], ids[context + option])
            starts[context] = min(same, starts.get(context, same))
        return tuple(
            self._row(question, option, ids[context + option], starts[context])
            for context, option in zip(contexts, question.options, strict=True)
        )

    def _row(self, question: Question, option: str, tokens: Tokens, start: int) -> int:
        if not 0 < start < len(tokens):
            missing = "after" if start else "before"
            raise UserError(
                f"the tokenizer {self._name} leaves no token {missing} the context of question {question.id}, option "
                f"{option.strip()!r}: name another one in data.tokenizer"
            )
        key = tokens.tobytes(), start
        if key not in self._places:
            self._places[key] = len(self.rows)
            self.rows.append(Row(tokens, start))
        return self._places[key]


def _common_prefix(one: Tokens, other: Tokens) -> int:
    shorter = min(len(one), len(other))
    differing = np.flatnonzero(one[:shorter] != other[:shorter])
    return int(differing[0]) if len(differing) else shorter
