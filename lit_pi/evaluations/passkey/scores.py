"""How often a hidden key was found, cell by cell."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics import Metric

from lit_pi.evaluations.statistics.intervals import wilson


class PasskeySample(NamedTuple):
    """One prompt that asks for a key.

    Attributes:
        context_length: tokens of `<bos>`, prompt and answer.
        cell: which distance or depth of the context length, counted from 0.
        trial: which prompt of the cell, counted from 0.
        nominal_distance: tokens that the protocol puts between key and prompt's end; the template may not allow them.
        distance: tokens from the key's first one through the prompt's last.
        depth: share of the filler before the key: 0 at its start, 1 at its end.
    """

    context_length: int
    cell: int
    trial: int
    nominal_distance: int
    distance: int
    depth: float


class AskedPasskey(NamedTuple):
    """A prompt that was scored.

    Attributes:
        sample: which one.
        correct: whether every answer token was the model's first choice, or it answered in writing.
        tokens: tokens of the answer; 0 where the model wrote it.
        first_choices: how many of them were the model's first choice.
        log_probability: that of the whole answer in nats, 0 where the model wrote it.
    """

    sample: PasskeySample
    correct: bool
    tokens: int
    first_choices: int
    log_probability: float


class PasskeyCell(NamedTuple):
    """The scored prompts of one context length and one distance or depth.

    Attributes:
        context_length: tokens of `<bos>`, prompt and answer.
        cell: which distance or depth of the context length, counted from 0.
        nominal_distance: tokens from key to prompt's end by the protocol, mean over prompts, rounded.
        distance: the tokens there are, mean over prompts.
        depth: share of the filler before the key, mean over prompts.
        n: prompts scored.
        correct: prompts of which every answer token was the model's first choice, or which it answered in writing.
        accuracy: `correct / n`.
        low: lower end of its 95 % interval (Wilson 1927).
        high: upper end.
        log_probability: the whole answer's in nats, mean over prompts; None where a model's scores are not finite,
            and where it wrote its answers.
        token_accuracy: share of the answers' tokens that were the first choice; None where the model wrote them.
    """

    context_length: int
    cell: int
    nominal_distance: int
    distance: float
    depth: float
    n: int
    correct: int
    accuracy: float
    low: float
    high: float
    log_probability: float | None
    token_accuracy: float | None


class PasskeyScores(Metric):
    """Sums by sample, so that any number of batches and ranks give the same figures.

    Args:
        samples: all that may be scored, in the order of their indices.
    """

    full_state_update = False
    scored: Int[Tensor, " samples"]
    exact: Int[Tensor, " samples"]
    tokens: Int[Tensor, " samples"]
    first_choices: Int[Tensor, " samples"]
    log_probability: Float[Tensor, " samples"]

    def __init__(self, samples: Sequence[PasskeySample]) -> None:
        super().__init__()
        self.samples = samples
        for name in ("scored", "exact", "tokens", "first_choices"):
            self.add_state(name, torch.zeros(len(samples), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("log_probability", torch.zeros(len(samples), dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self,
        indices: Int[Tensor, " batch"],
        token_nll: Float[Tensor, "batch scored"],
        token_rank: Int[Tensor, "batch scored"],
        is_answer: Bool[Tensor, "batch scored"],
    ) -> None:
        """Add a batch.

        Args:
            indices: each row's sample, -1 for a row that only fills up.
            token_nll: nats, 0 where nothing is scored.
            token_rank: tokens that are more likely than the target.
            is_answer: which of the scored places hold a token of the row's answer.
        """
        real = indices >= 0
        rows, answer = indices[real], is_answer[real]
        first = answer & (token_rank[real] == 0)
        self.scored.index_add_(0, rows, torch.ones_like(rows))
        self.exact.index_add_(0, rows, (first == answer).all(dim=1).long())
        self.tokens.index_add_(0, rows, answer.sum(dim=1))
        self.first_choices.index_add_(0, rows, first.sum(dim=1))
        self.log_probability.index_add_(0, rows, -token_nll[real].sum(dim=1, dtype=torch.float64))

    def compute(self) -> list[AskedPasskey]:
        """The prompts that were scored, in the order of the samples."""
        states = (self.scored, self.exact, self.tokens, self.first_choices, self.log_probability)
        return [
            AskedPasskey(sample, bool(exact), tokens, first, log_probability)
            for sample, scored, exact, tokens, first, log_probability in zip(
                self.samples, *(state.tolist() for state in states), strict=True
            )
            if scored
        ]


class WrittenPasskeys(PasskeyScores):
    """The same for answers that were written, token by token."""

    def update(  # type: ignore[override]
        self, indices: Int[Tensor, " batch"], answered: Bool[Tensor, " batch"]
    ) -> None:
        """Add a batch.

        Args:
            indices: each row's sample.
            answered: whether the answer is the key.
        """
        self.scored.index_add_(0, indices, torch.ones_like(indices))
        self.exact.index_add_(0, indices, answered.long())


def cells_of(asked: Sequence[AskedPasskey]) -> list[PasskeyCell]:
    """The cells of which something was scored, in the order of the samples."""
    members: dict[tuple[int, int], list[AskedPasskey]] = defaultdict(list)
    for entry in asked:
        members[entry.sample.context_length, entry.sample.cell].append(entry)
    return [_cell(*key, own) for key, own in members.items()]


def _cell(context_length: int, cell: int, asked: list[AskedPasskey]) -> PasskeyCell:
    samples, n, correct = [entry.sample for entry in asked], len(asked), sum(entry.correct for entry in asked)
    log_probability, tokens = sum(entry.log_probability for entry in asked) / n, sum(entry.tokens for entry in asked)
    low, high = wilson(correct, n)
    return PasskeyCell(
        context_length=context_length,
        cell=cell,
        nominal_distance=round(sum(sample.nominal_distance for sample in samples) / n),
        distance=sum(sample.distance for sample in samples) / n,
        depth=sum(sample.depth for sample in samples) / n,
        n=n,
        correct=correct,
        accuracy=correct / n,
        low=low,
        high=high,
        log_probability=log_probability if tokens and math.isfinite(log_probability) else None,
        token_accuracy=sum(entry.first_choices for entry in asked) / tokens if tokens else None,
    )


def k_max(cells: Sequence[PasskeyCell], threshold: float) -> int:
    """The largest distance up to which every cell reaches the threshold (Chen et al. 2023, section 3.3); 0 if none.

    Distances are nominal, as in the paper's table 4: where the template leaves no room for the farthest one, the key
    that stands as far as it can counts for it.

    Args:
        cells: cells of one context length.
        threshold: share of prompts answered; 0.2 in the paper.
    """
    reached = 0
    for cell in sorted(cells, key=lambda cell: (cell.nominal_distance, cell.accuracy)):
        if cell.accuracy < threshold:
            break
        reached = cell.nominal_distance
    return reached
