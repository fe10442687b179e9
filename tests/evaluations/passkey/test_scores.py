"""Cells, intervals and k_max of answers that are known, against figures computed another way."""

import json
import random

import numpy as np
import pytest
import torch

from lit_pi.evaluations.passkey.scores import PasskeyCell, PasskeySample, PasskeyScores, cells_of, k_max

LENGTHS, CELLS, TRIALS, TOKENS = (96, 64), 5, 7, 4
SAMPLES = [
    PasskeySample(length, cell, trial, length * (cell + 1) // CELLS, length * (cell + 1) // CELLS + trial, cell / 4)
    for length in LENGTHS
    for cell in range(CELLS)
    for trial in range(TRIALS)
]


def answers(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Nats, ranks and which places count for every sample; answers of 2 to 4 tokens, most of them right."""
    generator = torch.Generator().manual_seed(seed)
    shape = len(SAMPLES), TOKENS
    starts = torch.randint(0, 3, (len(SAMPLES), 1), generator=generator)
    is_answer = torch.arange(TOKENS)[None] >= starts
    nll = torch.rand(shape, generator=generator) * is_answer
    rank = torch.randint(1, 50, shape, generator=generator) * (torch.rand(shape, generator=generator) < 0.15)
    # Places that do not count may hold anything.
    return nll, torch.where(is_answer, rank, 1), is_answer


def interval(correct: int, n: int) -> tuple[float, float]:
    """The shares from which the one seen is no more than 1.96 standard errors away, by search."""
    shares = np.linspace(0, 1, 1_000_001)
    inside = np.abs(correct / n - shares) <= 1.959963984540054 * np.sqrt(shares * (1 - shares) / n)
    return float(shares[inside].min()), float(shares[inside].max())


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_cells_of_known_answers(batch_size: int) -> None:
    nll, rank, is_answer = answers(0)
    order = list(range(len(SAMPLES)))
    random.Random(1).shuffle(order)
    scores = PasskeyScores(SAMPLES)
    for start in range(0, len(order), batch_size):
        rows = torch.tensor(order[start : start + batch_size])
        filler = torch.tensor([-1])
        scores.update(
            torch.cat((rows, filler)),
            torch.cat((nll[rows], torch.zeros(1, TOKENS))),
            torch.cat((rank[rows], torch.zeros(1, TOKENS, dtype=torch.long))),
            torch.cat((is_answer[rows], torch.zeros(1, TOKENS, dtype=torch.bool))),
        )
    cells = cells_of(scores.compute())
    assert [(cell.context_length, cell.cell) for cell in cells] == [(L, c) for L in LENGTHS for c in range(CELLS)]
    for cell in cells:
        own = [i for i, sample in enumerate(SAMPLES) if sample[:2] == (cell.context_length, cell.cell)]
        right = [all(r == 0 for r, a in zip(rank[i].tolist(), is_answer[i].tolist(), strict=True) if a) for i in own]
        assert (cell.n, cell.correct, cell.accuracy) == (TRIALS, sum(right), sum(right) / TRIALS)
        assert (cell.low, cell.high) == pytest.approx(interval(sum(right), TRIALS), abs=2e-6)
        logs = [-float(nll[i].double().sum()) for i in own]
        assert cell.log_probability == pytest.approx(sum(logs) / TRIALS, rel=1e-12)
        counted = sum(int(is_answer[i].sum()) for i in own)
        first = sum(int(((rank[i] == 0) & is_answer[i]).sum()) for i in own)
        assert cell.token_accuracy == pytest.approx(first / counted, rel=1e-6)
        assert cell.nominal_distance == cell.context_length * (cell.cell + 1) // CELLS
        assert cell.distance == cell.nominal_distance + (TRIALS - 1) / 2
    assert len({cell.correct for cell in cells}) > 3
    assert json.loads(json.dumps([cell._asdict() for cell in cells]))[0]["n"] == TRIALS


def test_ranks_add_up() -> None:
    nll, rank, is_answer = answers(2)
    whole, parts = PasskeyScores(SAMPLES), [PasskeyScores(SAMPLES) for _ in range(3)]
    indices = torch.arange(len(SAMPLES))
    whole.update(indices, nll, rank, is_answer)
    for number, part in enumerate(parts):
        own = indices[number::3]
        part.update(own, nll[own], rank[own], is_answer[own])
    summed = PasskeyScores(SAMPLES)
    for state, reduction in summed._reductions.items():
        setattr(summed, state, reduction(torch.stack([getattr(part, state) for part in parts])))
    summed._update_count = 1
    assert summed.compute() == whole.compute()


def test_what_was_not_scored_is_no_cell() -> None:
    nll, rank, is_answer = answers(3)
    scores = PasskeyScores(SAMPLES)
    rows = torch.tensor([0, 1, TRIALS])
    scores.update(rows, nll[rows], rank[rows], is_answer[rows])
    assert [(cell.cell, cell.n) for cell in cells_of(scores.compute())] == [(0, 2), (1, 1)]


def test_scores_that_are_no_numbers_stay_out_of_the_record() -> None:
    scores = PasskeyScores(SAMPLES)
    answer = torch.ones(1, TOKENS, dtype=torch.bool)
    scores.update(torch.tensor([0]), torch.full((1, TOKENS), torch.nan), torch.full((1, TOKENS), 264), answer)
    (cell,) = cells_of(scores.compute())
    assert cell.accuracy == 0 and cell.log_probability is None


def cells(accuracies: dict[int, float]) -> list[PasskeyCell]:
    return [
        PasskeyCell(8192, place, distance, distance - 3.0, 0.5, 10, round(10 * share), share, 0.0, 1.0, -1.0, share)
        for place, (distance, share) in enumerate(accuracies.items())
    ]


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ({256: 1.0, 512: 0.9, 768: 0.4, 1024: 0.2}, (1024, 512, 512)),
        ({256: 1.0, 512: 0.1, 768: 1.0, 1024: 1.0}, (256, 256, 256)),
        ({256: 0.1, 512: 1.0}, (0, 0, 0)),
        ({1024: 0.2, 256: 0.5, 768: 0.1, 512: 0.5}, (512, 512, 0)),
        ({}, (0, 0, 0)),
    ],
)
def test_k_max_ends_before_the_first_distance_that_fails(
    accuracies: dict[int, float], expected: tuple[int, ...]
) -> None:
    assert tuple(k_max(cells(accuracies), threshold) for threshold in (0.2, 0.5, 0.9)) == expected


def test_of_two_cells_at_a_distance_both_must_reach_the_threshold() -> None:
    both = cells({256: 1.0, 512: 0.1}) + cells({512: 1.0, 768: 1.0})
    for order in (both, both[::-1]):
        assert k_max(order, 0.2) == 256
