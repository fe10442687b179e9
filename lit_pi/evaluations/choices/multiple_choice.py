"""Questions answered by the likelihood of their options."""

import hashlib
import json
from collections.abc import Mapping
from math import ceil
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from lit_pi.batches import IGNORE, ScoringBatch, Span
from lit_pi.data.ranks import share_out
from lit_pi.data.tokenizer import tokenizer_fingerprint
from lit_pi.errors import UserError
from lit_pi.evaluations.choices.paired import KIND
from lit_pi.evaluations.choices.question_table import question_columns
from lit_pi.evaluations.choices.rows import Row, RowEncoder
from lit_pi.evaluations.choices.scores import ChoiceQuestion, ChoiceScores, accuracies
from lit_pi.evaluations.choices.tables import choice_differences, choice_tables
from lit_pi.evaluations.choices.tasks import Question, Task
from lit_pi.evaluations.evaluation import Evaluation, Found, Results, ScoringBatches
from lit_pi.evaluations.selection import at_most
from lit_pi.evaluations.tables import Table
from lit_pi.ranges import Count, Seed, Tokens, in_range

LENGTH_MULTIPLE = 8
"""Rows are padded to a multiple of this many tokens, so that kernels see few shapes."""


class MultipleChoice(Evaluation):
    """Asks questions with options, zero-shot, and chooses the most likely option (Chen et al. 2023, table 5).

    Every option is scored by the log-likelihood of its tokens after its context, both encoded together, in one row
    that is never cut. All ways to compare options come from the same run (see `lit_pi.evaluations.choices.scores`).

    Args:
        task: gives the questions: `BoolQ`, `PIQA`, `RACE` or `WinoGrande`.
        context_length: tokens that `<bos>`, context and option may have; a question that does not fit is an error.
        batch_tokens: tokens of one forward, padding included, where a single row does not have more.
        max_questions: how many questions to ask, a random choice; None for all.
        seed: chooses the questions.
        every_n_steps: during `fit`, measure at steps that are multiples of this; None for every validation.

    Raises:
        UserError: an option is below its least value.
    """

    kind = KIND
    folder = "questions"

    @in_range
    def __init__(
        self,
        task: Task,
        context_length: Tokens = 2048,
        batch_tokens: Tokens = 4096,
        max_questions: Count | None = None,
        seed: Seed = 0,
        every_n_steps: Count | None = None,
    ) -> None:
        super().__init__(every_n_steps)
        self.task = task
        self.context_length = context_length
        self.batch_tokens = batch_tokens
        self.max_questions = max_questions
        self.seed = seed
        self.questions: list[ChoiceQuestion] = []
        self.rows: list[Row] = []
        self._protocol: dict[str, Any] = {}

    def prepare(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Read and encode the questions.

        Raises:
            UserError: there are none, one is not of its format, or one does not fit the context length.
        """
        if self.questions:
            return
        everything = self.task.questions()
        chosen = at_most(np.arange(len(everything)), self.max_questions, self.seed)
        questions = [everything[index] for index in chosen.tolist()]
        encoder = RowEncoder(tokenizer, self.task.answer_context)
        found = list(encoder.encode(questions))
        self._check_lengths(found, encoder.rows)
        self.questions, self.rows = found, encoder.rows
        self._protocol = {
            "questions": len(questions),
            "questions_left_out": len(everything) - len(questions),
            "questions_fingerprint": _fingerprint(questions),
            "longest_row": max(len(row.tokens) for row in encoder.rows),
            "bos": tokenizer.bos_token_id is not None,
            "tokenizer": {"name": tokenizer.name_or_path, "fingerprint": tokenizer_fingerprint(tokenizer)},
        }

    def _check_lengths(self, questions: list[ChoiceQuestion], rows: list[Row]) -> None:
        sizes = [max(len(rows[row].tokens) for row in question.rows + question.alone) for question in questions]
        too_long = [place for place, size in enumerate(sizes) if size > self.context_length]
        if too_long:
            worst = max(too_long, key=lambda place: sizes[place])
            raise UserError(
                f"question {questions[worst].id} of {type(self.task).__name__} takes {sizes[worst]:,} tokens, and "
                f"{len(too_long):,} of {len(questions):,} take more than context_length {self.context_length:,}; "
                f"none is ever cut: set context_length of the evaluation to {sizes[worst]} or more"
            )

    def batches(self, name: str, tokenizer: PreTrainedTokenizerFast, world_size: int) -> "RowBatches":
        """The rows of all questions."""
        return RowBatches(name, self.rows, self.context_length, self.batch_tokens, world_size)

    def metric(self) -> ChoiceScores:
        """Return sums for each row."""
        return ChoiceScores(self.questions)

    def add(self, metric: ChoiceScores, outputs: dict[str, Any], batch: ScoringBatch) -> None:
        """Add a batch of rows."""
        (token_nll,) = outputs["token_nll"]
        metric.update(batch.documents, token_nll)

    def results(self, metric: ChoiceScores, model: Mapping[str, Any]) -> Results:
        """Return accuracies, one for each way to compare options; questions count whose options were all scored."""
        questions = metric.compute()
        found = accuracies(questions)
        return Results(
            {"accuracies": [entry._asdict() for entry in found]},
            {f"accuracy/{entry.normalisation}": entry.accuracy for entry in found},
            question_columns(questions, [entry.normalisation for entry in found]) if questions else None,
        )

    @classmethod
    def tables(cls, found: Found) -> list[Table]:
        """Return all tasks side by side, each as the field compares its options."""
        return choice_tables(found)

    @classmethod
    def differences(cls, found: Found) -> list[Table]:
        """Return what runs answer that the first one does not, on the same questions."""
        return choice_differences(found)

    def describe(self) -> dict[str, Any]:
        """Task, prompt, questions, tokenizer, and what is compared."""
        return {
            **self.task.describe(),
            **self._protocol,
            "max_questions": self.max_questions,
            "seed": self.seed,
            "context_length": self.context_length,
            "log_likelihood_is": "nats, sum over the tokens after the common prefix of context and context with option",
            "normalisation": self.task.normalisation,
        }


class RowBatches(ScoringBatches):
    """Rows of about one length, the longest first.

    Args:
        name: name of the evaluation.
        rows: rows to score.
        context_length: tokens that no row exceeds.
        batch_tokens: tokens of a batch, where it has more than one row.
        world_size: ranks that share the rows.
    """

    def __init__(self, name: str, rows: list[Row], context_length: int, batch_tokens: int, world_size: int) -> None:
        self.name = name
        self.rows = rows
        self.context_length = context_length
        self.planned: list[tuple[list[int], list[int]]] = []
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index].tokens))
        start = 0
        while start < len(order):
            size = max(1, batch_tokens // _padded(len(rows[order[start]].tokens)))
            together = order[start : start + size * world_size]
            self.planned += [(together, own) for own in share_out(together, -1, size, world_size)]
            start += len(together)

    def __len__(self) -> int:
        return len(self.planned)

    def __getitem__(self, index: int) -> ScoringBatch:
        """Rows, right-padded with token 0; one that only fills up scores nothing."""
        together, own = self.planned[index]
        # Length and scored positions are those of all ranks' rows, so that all run equal forwards.
        length = _padded(max(len(self.rows[number].tokens) for number in together))
        scored = np.unique(np.concatenate([_scored(self.rows[number]) for number in together]))
        input_ids = torch.zeros(len(own), length, dtype=torch.long)
        targets = torch.full((len(own), len(scored)), IGNORE)
        lengths = torch.ones(len(own), dtype=torch.long)
        for place, number in enumerate(own):
            if number >= 0:
                row = self.rows[number]
                tokens = torch.from_numpy(row.tokens.astype(np.int64))
                input_ids[place, : len(tokens)] = tokens
                targets[place, np.searchsorted(scored, _scored(row))] = tokens[row.start :]
                lengths[place] = len(tokens)
        return ScoringBatch(
            evaluation=self.name,
            input_ids=input_ids,
            lengths=lengths,
            scored=torch.from_numpy(scored),
            targets=targets,
            spans=(Span(self.context_length, 0, len(scored)),),
            documents=torch.tensor(own),
            begins=torch.zeros(len(own), dtype=torch.long),
        )


def _padded(tokens: int) -> int:
    return ceil(tokens / LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def _scored(row: Row) -> np.ndarray:
    """The positions before the scored tokens."""
    return np.arange(row.start - 1, len(row.tokens) - 1)


def _fingerprint(questions: list[Question]) -> str:
    """Digest of all that is asked: runs that share it are compared question by question."""
    return hashlib.sha256(json.dumps(questions).encode()).hexdigest()[:16]
