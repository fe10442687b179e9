"""Which options a model finds the most likely, question by question."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from lit_pi.evaluations.statistics.intervals import wilson

Normalisation = Literal["none", "characters", "bytes", "tokens", "answer_context"]
"""How options are compared: by their log-likelihood as it is, by its mean over the option's characters (Unicode code
points), UTF-8 bytes or tokens, or by what the question adds to it: ln P(option | context) - ln P(option | answer
context), as Brown et al. 2020, section 2.4."""
NORMALISATIONS: tuple[Normalisation, ...] = get_args(Normalisation)
LABELS: dict[str, str] = {
    "none": "log-likelihood",
    "characters": "per character",
    "bytes": "per byte",
    "tokens": "per token",
    "answer_context": "over P(option | answer context)",
}
"""How options were compared, as a person reads it."""


class ChoiceQuestion(NamedTuple):
    """One question, by the rows that score its options; rows may serve several questions.

    Attributes:
        id: what a person recognises it by.
        answer: index of the right option.
        rows: for each option, the row that scores it after its context.
        alone: for each option, the row that scores it after the answer context; empty where the task has none.
        characters: how many each option has, without the space before it.
        bytes: UTF-8 bytes of the same.
        tokens: scored, of each option.
    """

    id: str
    answer: int
    rows: tuple[int, ...]
    alone: tuple[int, ...]
    characters: tuple[int, ...]
    bytes: tuple[int, ...]
    tokens: tuple[int, ...]


class ScoredQuestion(NamedTuple):
    """A question of which every row was scored.

    Attributes:
        question: whose options were scored.
        log_likelihood: that of each option after its context, in nats.
        alone: that of each option after the answer context, in nats; empty where the task has none.
    """

    question: ChoiceQuestion
    log_likelihood: tuple[float, ...]
    alone: tuple[float, ...]

    def chosen(self, normalisation: Normalisation) -> int:
        """Index of the best option, the first of equals; -1 where scores are not finite."""
        scores = self._scores(normalisation)
        return scores.index(max(scores)) if all(map(math.isfinite, scores)) else -1

    def correct(self, normalisation: Normalisation) -> bool:
        """Whether the best option is the right one."""
        return self.chosen(normalisation) == self.question.answer

    def _scores(self, normalisation: Normalisation) -> list[float]:
        if normalisation == "none":
            return list(self.log_likelihood)
        if normalisation == "answer_context":
            return [score - alone for score, alone in zip(self.log_likelihood, self.alone, strict=True)]
        sizes = {
            "characters": self.question.characters,
            "bytes": self.question.bytes,
            "tokens": self.question.tokens,
        }[normalisation]
        return [score / size for score, size in zip(self.log_likelihood, sizes, strict=True)]


class Accuracy(NamedTuple):
    """The share of questions whose best option is the right one.

    Attributes:
        normalisation: how options are compared.
        n: questions scored.
        correct: questions whose best option is the right one.
        accuracy: `correct / n`.
        low: lower end of its 95 % interval (Wilson 1927).
        high: upper end.
    """

    normalisation: Normalisation
    n: int
    correct: int
    accuracy: float
    low: float
    high: float


class ChoiceScores(Metric):
    """Log-likelihoods by row, so that any number of batches and ranks give the same figures.

    Args:
        questions: all that may be scored.
    """

    full_state_update = False
    scored: Int[Tensor, " rows"]
    log_likelihood: Float[Tensor, " rows"]

    def __init__(self, questions: Sequence[ChoiceQuestion]) -> None:
        super().__init__()
        self.questions = questions
        rows = 1 + max(row for question in questions for row in question.rows + question.alone)
        self.add_state("scored", torch.zeros(rows, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("log_likelihood", torch.zeros(rows, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, indices: Int[Tensor, " batch"], token_nll: Float[Tensor, "batch scored"]) -> None:
        """Add a batch.

        Args:
            indices: places of the rows, -1 for one that only fills up.
            token_nll: nats, 0 where nothing is scored.
        """
        real = indices >= 0
        rows = indices[real]
        self.scored.index_add_(0, rows, torch.ones_like(rows))
        self.log_likelihood.index_add_(0, rows, -token_nll[real].sum(dim=1, dtype=torch.float64))

    def compute(self) -> list[ScoredQuestion]:
        """The questions of which every row was scored, in their order."""
        scored, sums = self.scored.tolist(), self.log_likelihood.tolist()
        return [
            ScoredQuestion(
                question, tuple(sums[row] for row in question.rows), tuple(sums[row] for row in question.alone)
            )
            for question in self.questions
            if all(scored[row] for row in question.rows + question.alone)
        ]


def accuracies(questions: Sequence[ScoredQuestion]) -> list[Accuracy]:
    """The accuracy of every normalisation that the task has; of no questions, none."""
    found = []
    for normalisation in NORMALISATIONS if questions else ():
        if normalisation != "answer_context" or questions[0].alone:
            n, correct = len(questions), sum(question.correct(normalisation) for question in questions)
            found.append(Accuracy(normalisation, n, correct, correct / n, *wilson(correct, n)))
    return found
