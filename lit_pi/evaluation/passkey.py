"""How often a hidden key was found, cell by cell."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from lit_pi.data.batches import IGNORE

Z = 1.959963984540054
"""Standard normal quantile of a two-sided 95 % interval."""


class Cell(NamedTuple):
    """The questions of one context length and one distance.

    Attributes:
        context_length: tokens of prompt and answer.
        distance: tokens from the key to the prompt's end; the mean where questions differ.
        depth: the same as a share of the text: 0 at its start, 1 at its end.
        questions: asked.
        correct: answered.
        accuracy: share of the questions that were answered.
        low: lower end of its 95 % interval (Wilson 1927).
        high: upper end.
        log_probability: of the whole answer in nats, mean over questions.
        token_accuracy: share of the answers' tokens that were the first choice.
    """

    context_length: int
    distance: float
    depth: float
    questions: int
    correct: int
    accuracy: float
    low: float
    high: float
    log_probability: float
    token_accuracy: float


class PasskeyScores(Metric):
    """Sums by question, so that any number of batches and ranks give the same figure.

    Args:
        questions: how many there are.
    """

    full_state_update = False
    asked: Int[Tensor, " questions"]
    tokens: Int[Tensor, " questions"]
    first_choices: Int[Tensor, " questions"]
    log_probability: Float[Tensor, " questions"]

    def __init__(self, questions: int) -> None:
        super().__init__()
        for name in ("asked", "tokens", "first_choices"):
            self.add_state(name, torch.zeros(questions, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("log_probability", torch.zeros(questions, dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self,
        questions: Int[Tensor, " batch"],
        token_nll: Float[Tensor, "batch scored"],
        token_rank: Int[Tensor, "batch scored"],
        targets: Int[Tensor, "batch scored"],
    ) -> None:
        """Add a batch.

        Args:
            questions: number of each row's question, -1 for a row that only fills up.
            token_nll: nats, 0 where nothing is scored.
            token_rank: tokens that are more likely than the target.
            targets: tokens of the answers, or `IGNORE`.
        """
        real, answers = questions >= 0, targets != IGNORE
        numbers = questions[real]
        self.asked[numbers] += 1
        self.tokens[numbers] += answers.sum(dim=1)[real]
        self.first_choices[numbers] += (answers & (token_rank == 0)).sum(dim=1)[real]
        self.log_probability[numbers] -= token_nll.sum(dim=1, dtype=torch.float64)[real]

    def compute(self) -> dict[str, list[float]]:
        """For each question whether it was asked (0 or 1) and answered, and its sums."""
        correct = (self.first_choices == self.tokens) & (self.asked > 0)
        return {
            "asked": self.asked.tolist(),
            "correct": correct.long().tolist(),
            "tokens": self.tokens.tolist(),
            "first_choices": self.first_choices.tolist(),
            "log_probability": self.log_probability.tolist(),
        }


def wilson(correct: int, questions: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    share, ratio = correct / questions, Z * Z / questions
    centre = (share + ratio / 2) / (1 + ratio)
    half = math.sqrt(share * (1 - share) * ratio + ratio * ratio / 4) / (1 + ratio)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def k_max(cells: Sequence[Cell], threshold: float) -> float:
    """The largest distance up to which every cell reaches the threshold (Chen et al. 2023, section 3.3); 0 if none.

    Args:
        cells: of one context length.
        threshold: share of questions answered; 0.2 in the paper.
    """
    reached = 0.0
    for cell in sorted(cells, key=lambda cell: cell.distance):
        if cell.accuracy < threshold:
            break
        reached = cell.distance
    return reached
