"""A pilot's number of windows makes the interval of all windows as narrow as asked."""

import numpy as np
import pytest
from sampled import only

from lit_pi.evaluations.perplexity import first_look
from lit_pi.evaluations.perplexity.measures import measure
from lit_pi.evaluations.perplexity.sampled.pilot import PILOT_WINDOWS, choose, windows_needed
from lit_pi.evaluations.perplexity.sampled.sampling import WindowSample
from lit_pi.evaluations.perplexity.token_scores import TokenLosses, series_of
from lit_pi.evaluations.perplexity.windows import WindowPlan

PLAN = WindowPlan([32, 64], 8, "every")
LENGTHS = np.array([4000, 9000, 2500, 6000])
COUNTS = np.array([PLAN.count(32, length) for length in LENGTHS.tolist()])


@pytest.fixture(scope="module")
def losses() -> TokenLosses:
    """Losses that agree inside a window more than between them, drift along documents, and are noisy in each pass."""
    chance, offsets = np.random.default_rng(0), np.concatenate(([0], np.cumsum(LENGTHS)))
    place = np.arange(offsets[-1])
    level = 2 + np.repeat(chance.normal(0, 0.3, len(place) // 10 + 1), 10)[: len(place)] + place / len(place)
    noise = chance.exponential(0.5, len(place))
    nll = {
        series: (level + noise + chance.normal(0, 0.5, len(place))).astype(np.float32)
        for series in series_of([PLAN, *PLAN.disjoint()])
    }
    return TokenLosses(offsets, nll)


@pytest.mark.parametrize("precision", [0.03, 0.02])
def test_intervals_are_as_narrow_as_asked(losses: TokenLosses, precision: float) -> None:
    narrow, numbers = [], []
    for seed in range(12):
        pilot = WindowSample(COUNTS, PILOT_WINDOWS, seed)
        choice = windows_needed(only(losses, PLAN, pilot), PLAN, PLAN.disjoint(), pilot, precision)
        numbers.append(choice.num_windows)
        sample = WindowSample(COUNTS, numbers[-1], seed)
        for point in measure(only(losses, PLAN, sample), [PLAN, *PLAN.disjoint()], sample).curve:
            assert point.sampling_high is not None
            narrow.append(point.sampling_high / point.perplexity - 1 <= precision)
    assert np.mean(narrow) >= 0.75  # a pilot of 64 windows is right with probability 0.8
    assert len(set(numbers)) <= 5  # of a grid
    assert PILOT_WINDOWS < max(numbers) < COUNTS.sum() / 2


def test_a_narrower_interval_needs_more_windows_up_to_all(losses: TokenLosses) -> None:
    pilot = WindowSample(COUNTS, PILOT_WINDOWS, 0)
    run = only(losses, PLAN, pilot)
    numbers = [
        windows_needed(run, PLAN, PLAN.disjoint(), pilot, precision).num_windows
        for precision in (0.5, 0.04, 0.02, 0.01, 1e-6)
    ]
    assert numbers[0] == 32 and numbers == sorted(numbers) and numbers[-1] == pilot.units
    assert 2 <= numbers[2] / numbers[1] <= 6  # four times as many, but for the grid and the windows that there are


@pytest.fixture
def failing(losses: TokenLosses) -> TokenLosses:
    """The same with 6 nats more in every hundredth overlapping window, which disjoint ones do not show."""
    nll = {series: values.copy() for series, values in losses.nll.items()}
    for series in series_of([PLAN]):
        for document, length in enumerate(LENGTHS.tolist()):
            bounds = losses.offsets[document] + PLAN.bounds(series.context_length, length)
            for place in range(37, len(bounds) - 1, 100):
                nll[series][bounds[place] : bounds[place + 1]] += 6
    return losses._replace(nll=nll)


class Evaluation:
    """As much of an evaluation as its pilot asks."""

    plan, controls, lengths, precision, drawn = PLAN, [PLAN.disjoint()], LENGTHS, 0.02, None

    def __init__(self, seed: int) -> None:
        self.seed, self.pilots = seed, []

    def pilot(self, num_windows: int = PILOT_WINDOWS) -> WindowSample:
        self.pilots.append(num_windows)
        return WindowSample(COUNTS, num_windows if num_windows < COUNTS.sum() / 2 else COUNTS.sum(), self.seed)

    def draw(self, num_windows: int) -> None:
        self.drawn = num_windows
        self.sample = WindowSample(COUNTS, num_windows, self.seed)


def test_a_pilot_that_a_few_blocks_carry_draws_more_until_they_do_not(
    failing: TokenLosses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_look, "_scored", lambda *given: only(failing, PLAN, given[-1]))
    grown = 0
    for seed in range(12):
        evaluation = Evaluation(seed)
        first = windows_needed(
            only(failing, PLAN, evaluation.pilot()), PLAN, PLAN.disjoint(), WindowSample(COUNTS, 64, seed), 0.02
        )
        evaluation.pilots.clear()
        first_look.settle_windows("books", evaluation, None, None)
        assert (len(evaluation.pilots) > 1) == (first.unsettled is not None)
        if len(evaluation.pilots) > 1 and evaluation.drawn is not None:
            assert evaluation.drawn >= evaluation.pilots[-1] == 2 ** (len(evaluation.pilots) - 1) * PILOT_WINDOWS
        grown += first.unsettled is not None
    assert 2 <= grown < 12, "in some draws a few blocks carry the pilot"


def test_a_pilot_that_is_never_settled_runs_all_windows(
    losses: TokenLosses, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(first_look, "_scored", lambda *given: only(losses, PLAN, given[-1]))
    monkeypatch.setattr(
        "lit_pi.evaluations.perplexity.sampled.pilot.unsettled", lambda *_: "one block carries 99 % of it"
    )
    evaluation = Evaluation(0)
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        first_look.settle_windows("books", evaluation, None, None)
    assert evaluation.drawn is None and evaluation.pilots == [64, 128, 256, 512, 1024, 2048]
    assert "no sample of windows is settled: all of them are run" in caplog.text


@pytest.mark.parametrize("beside", [[], PLAN.disjoint()])
def test_rare_failures_are_unsettled_unless_many_windows_or_disjoint_ones_were_seen(
    losses: TokenLosses, beside: list[WindowPlan]
) -> None:
    for num_windows, seen in ((64, bool(beside)), (298, bool(beside)), (300, True)):
        sample = WindowSample(COUNTS, num_windows, 0)
        found = measure(only(losses, PLAN, sample), [PLAN, *beside], sample)
        assert (found.unsettled is None) == seen
        if not seen:
            assert found.record()["sampling_unsettled"].startswith(f"{num_windows} windows were drawn, fewer than 300")


@pytest.mark.parametrize("fails", [False, True])
def test_one_disjoint_pass_will_do_unless_the_model_fails_at_long_contexts(fails: bool) -> None:
    """A model that fails beyond 32 tokens has other losses there, which tell nothing of those at 32."""
    chance, offsets = np.random.default_rng(0), np.concatenate(([0], np.cumsum(LENGTHS)))
    noise, other = chance.exponential(0.5, (2, offsets[-1]))
    nll = {}
    for series in series_of([PLAN, *PLAN.disjoint()]):
        failed = fails and series.context_length == 64
        level = 5 + 4 * other if failed else 2 + noise
        nll[series] = (level + chance.normal(0, 0.05, offsets[-1])).astype(np.float32)
    losses = TokenLosses(offsets, nll)
    pilot = WindowSample(COUNTS, PILOT_WINDOWS, 0)
    num_windows, disjoint, unsettled = choose(
        only(losses, PLAN, pilot), PLAN, [PLAN.disjoint()[-1:], PLAN.disjoint()], pilot, 0.01
    )
    assert [plan.context_lengths for plan in disjoint] == ([(32,), (64,)] if fails else [(64,)])
    assert num_windows < COUNTS.sum() / 4 and unsettled is None
    sample = WindowSample(COUNTS, num_windows, 0)
    run = only(losses, PLAN, sample)
    whole = {point.context_length: point.perplexity for point in measure(losses, [PLAN]).curve}
    for point in measure(run, [PLAN, *disjoint], sample).curve:
        assert point.sampling_low <= whole[point.context_length] <= point.sampling_high
        assert point.sampling_high / point.perplexity - 1 < 0.015
