"""Choices from known log-likelihoods, each way to compare options by hand."""

import random

import pytest
import torch

from lit_pi.evaluations.choices.scores import (
    NORMALISATIONS,
    ChoiceQuestion,
    ChoiceScores,
    ScoredQuestion,
    accuracies,
)

# Every way prefers another option: -1; -2/10; -3/60; -4/40; -5 + 20.
LIKELIHOOD, ALONE = (-1.0, -2.0, -3.0, -4.0, -5.0), (-1.0, -2.0, -3.0, -4.0, -20.0)
SIZES = {"characters": (1, 10, 14, 5, 5), "bytes": (1, 10, 60, 5, 5), "tokens": (1, 2, 2, 40, 5)}
PREFERRED = {"none": 0, "characters": 1, "bytes": 2, "tokens": 3, "answer_context": 4}


def question(answer: int = 0, first_row: int = 0, alone: bool = True, name: str = "q") -> ChoiceQuestion:
    rows = tuple(range(first_row, first_row + 5))
    return ChoiceQuestion(name, answer, rows, tuple(row + 5 for row in rows) if alone else (), **SIZES)


def scored(likelihood: tuple[float, ...] = LIKELIHOOD, answer: int = 0, alone: bool = True) -> ScoredQuestion:
    return ScoredQuestion(question(answer, alone=alone), likelihood, ALONE if alone else ())


def test_each_normalisation_is_its_own() -> None:
    assert set(PREFERRED) == set(NORMALISATIONS)
    for name, option in PREFERRED.items():
        assert scored().chosen(name) == option
        assert [scored(answer=answer).correct(name) for answer in range(5)] == [answer == option for answer in range(5)]


def test_accuracies_count_right_choices_and_leave_out_what_the_task_has_not() -> None:
    found = accuracies([scored(answer=answer) for answer in (0, 0, 1, 4)])
    assert {entry.normalisation: (entry.n, entry.correct, entry.accuracy) for entry in found} == {
        "none": (4, 2, 0.5), "characters": (4, 1, 0.25), "bytes": (4, 0, 0.0), "tokens": (4, 0, 0.0),
        "answer_context": (4, 1, 0.25),
    }  # fmt: skip
    # Wilson's bounds of 2 of 4, as R's prop.test(2, 4, correct = FALSE) has them.
    assert found[0][4:] == pytest.approx((0.1500390, 0.8499610), abs=1e-6)
    assert [entry.normalisation for entry in accuracies([scored(alone=False)])] == list(NORMALISATIONS[:4])
    assert accuracies([]) == []


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), float("inf")])
def test_scores_that_are_no_numbers_choose_nothing(value: float) -> None:
    broken = scored((value, -2.0, -3.0, -4.0, -5.0))
    assert {broken.chosen(name) for name in NORMALISATIONS} == {-1}
    assert {entry.correct for entry in accuracies([broken])} == {0}


def test_of_equals_the_first_is_chosen() -> None:
    assert scored((-3.0, -1.0, -1.0, -1.0, -3.0)).chosen("none") == 1


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_sums_over_any_batches_and_ranks(batch_size: int) -> None:
    questions = [question(first_row=10 * number, name=str(number)) for number in range(7)]
    # One row may serve several questions.
    questions.append(questions[0]._replace(id="again", answer=3))
    generator = torch.Generator().manual_seed(0)
    nll = 5 * torch.rand(70, 6, generator=generator)
    order = list(range(70))
    random.Random(0).shuffle(order)
    ranks = [ChoiceScores(questions) for _ in range(2)]
    for place, start in enumerate(range(0, 70, batch_size)):
        rows = torch.tensor([*order[start : start + batch_size], -1])
        ranks[place % 2].update(rows, torch.cat((nll[rows[:-1]], torch.full((1, 6), torch.nan))))
    assert {ranks[0]._reductions[name].__name__ for name in ("scored", "log_likelihood")} == {"dim_zero_sum"}
    whole, other = ranks
    whole.scored += other.scored  # what the reduction over the ranks does
    whole.log_likelihood += other.log_likelihood
    whole.update(torch.tensor([-1]), torch.zeros(1, 6))
    found = whole.compute()
    assert [entry.question for entry in found] == questions
    for entry in found:
        for rows, sums in ((entry.question.rows, entry.log_likelihood), (entry.question.alone, entry.alone)):
            assert sums == pytest.approx([-sum(map(float, nll[row].double())) for row in rows], rel=1e-12)


def test_sums_are_of_double_precision() -> None:
    scores = ChoiceScores([question(alone=False)])
    scores.update(torch.arange(5), torch.full((5, 30_000), 0.1))
    (found,) = scores.compute()
    assert found.log_likelihood[1] == pytest.approx(-30_000 * float(torch.tensor(0.1)), rel=1e-12)


def test_questions_that_were_not_scored_whole_do_not_count() -> None:
    questions = [question(first_row=0, name="whole"), question(first_row=10, name="half")]
    scores = ChoiceScores(questions)
    scores.update(torch.arange(19), torch.ones(19, 2))
    assert [entry.question.id for entry in scores.compute()] == ["whole"]
