"""A sample of windows gives what all windows give: on average exactly, and within its interval.

`book_windows.npz` holds the overlapping windows (1,024 words, a stride of 64) of 30 books' first 10,000 words, with the
nats that a model loses in each (`bigram`, see the intervals over documents) and those expected from disjoint windows.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest

from lit_pi.evaluations.perplexity.sampled.sampling import Totals, WindowSample
from lit_pi.evaluations.statistics.block_intervals import sampling_error

DOCUMENTS = np.array([1, 4, 2, 30, 9, 60, 3])
"""Windows of each document."""


def windows(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Document, number, tokens and nats of each window; losses drift along a document and differ between them."""
    chance = np.random.default_rng(seed)
    document = np.repeat(np.arange(len(DOCUMENTS)), DOCUMENTS)
    number = np.concatenate([np.arange(count) for count in DOCUMENTS])
    x = np.where(number == 0, 500.0, chance.integers(20, 65, len(number)))
    level = 2 + chance.normal(0, 0.3, len(DOCUMENTS))[document] - 0.01 * number
    return document, number, x, x * (level + chance.normal(0, 0.2, len(number)))


def half_width(totals: Totals) -> float:
    """Half of the 95 % interval of a mean."""
    error = sampling_error(totals.errors)
    assert error is not None
    return error.half_width / totals.x.sum()


def test_every_outcome_of_a_small_draw_averages_to_all_windows() -> None:
    """Blocks of 3 and 4 windows have 3 and 6 pairs, which draw with equal chances."""
    document, number = np.zeros(8, np.int64), np.arange(8)
    x = np.array([9.0, 2, 3, 1, 4, 2, 2, 1])
    y = np.array([20.0, 5, 4, 1, 9, 3, 7, 2])
    sample = WindowSample(np.array([8]), 4, seed=0)
    estimates, variances = [], []
    for one, other in itertools.product(itertools.combinations(range(3), 2), itertools.combinations(range(3, 7), 2)):
        sample.chosen[:] = False
        sample.chosen[[*one, *other]] = True
        totals = sample.totals(y, 20 / 9 * x, x, document, number, 1)
        assert totals.x == pytest.approx(x.sum())
        estimates.append(totals.y[0])
        variances.append(np.square(totals.errors).sum())
    assert np.mean(estimates) == pytest.approx(y.sum(), rel=1e-12)
    assert np.mean(variances) == pytest.approx(np.var(estimates), rel=1e-9)


def test_pairs_are_drawn_with_equal_chances() -> None:
    counts = np.zeros((7, 7))
    for seed in range(6000):
        chosen = np.flatnonzero(WindowSample(np.array([8]), 2, seed).chosen)
        counts[tuple(chosen)] += 1
    pairs = counts[np.triu_indices(7, 1)]
    assert pairs.sum() == 6000 and abs(pairs / 6000 - 1 / 21).max() < 0.012  # 4 standard errors


def test_intervals_hold_the_full_value_and_are_unbiased() -> None:
    document, number, x, y = windows()
    full, expected = y.sum() / x.sum(), y[number == 0].sum() / x[number == 0].sum()
    errors, held = [], []
    for seed in range(1000):
        sample = WindowSample(DOCUMENTS, 40, seed)
        totals = sample.totals(y, expected * x, x, document, number, len(DOCUMENTS))
        errors.append(totals.y.sum() / totals.x.sum() - full)
        held.append(abs(errors[-1]) <= half_width(totals))
    assert abs(np.mean(errors)) < 4 * np.std(errors) / np.sqrt(1000)
    assert 0.93 <= np.mean(held) <= 0.97


def test_expectations_that_are_close_narrow_the_interval_by_what_they_leave() -> None:
    document, number, x, y = windows()
    chance, later = np.random.default_rng(5), number > 0
    known = y + x * chance.normal(0.1, 0.02, len(x))  # off by a tenth of a nat on average, which is no bias
    full, plain, halves, errors, held = y.sum() / x.sum(), y[number == 0].sum() / x[number == 0].sum(), [], [], []
    for seed in range(1000):
        sample = WindowSample(DOCUMENTS, 40, seed)
        found = [sample.totals(y, expected, x, document, number, len(DOCUMENTS)) for expected in (plain * x, known)]
        halves.append([half_width(totals) for totals in found])
        errors.append(found[1].y.sum() / found[1].x.sum() - full)
        held.append(abs(errors[-1]) <= halves[-1][1])
    assert abs(np.mean(errors)) < 4 * np.std(errors) / np.sqrt(1000)
    assert 0.93 <= np.mean(held) <= 0.97
    # Spread between neighbours, of which the draw takes blocks of 5 or 6.
    blocks = [np.array_split((y - expected)[later], 20) for expected in (plain * x, known)]
    plainly, closely = (np.sqrt(np.mean([np.var(block, ddof=1) for block in parts])) for parts in blocks)
    root = np.sqrt(np.square(halves).mean(axis=0))
    assert root[1] / root[0] == pytest.approx(closely / plainly, rel=0.1) and closely < plainly / 4


def test_the_number_drawn_and_the_rest() -> None:
    document, number, _, _ = windows()
    sample = WindowSample(DOCUMENTS, 21, seed=3)
    assert (sample.num_windows, sample.units, sample.complete) == (22, int((DOCUMENTS - 1).sum()), False)
    included = sample.includes(document, number)
    assert included[number == 0].all() and included.sum() == len(DOCUMENTS) + 22
    weights = sample.weights(document, number)
    assert ((weights > 0) == included).all()
    assert weights.sum() == pytest.approx(len(document))
    assert (WindowSample(DOCUMENTS, 21, seed=3).chosen == sample.chosen).all()
    assert (WindowSample(DOCUMENTS, 21, seed=4).chosen != sample.chosen).any()


def test_all_windows_are_no_estimate() -> None:
    document, number, x, y = windows()
    for num_windows in (102, 103, 5000):
        sample = WindowSample(DOCUMENTS, num_windows, seed=0)
        assert sample.complete and sample.includes(document, number).all()
        totals = sample.totals(y, x, x, document, number, len(DOCUMENTS))
        assert sampling_error(totals.errors) is None
        assert totals.y == pytest.approx(np.bincount(document, y), rel=1e-12)


BOOKS = dict(np.load(Path(__file__).parent / "book_windows.npz"))


def share_held(nll: np.ndarray, expected: np.ndarray, num_windows: int, draws: int) -> float:
    """How often intervals hold the mean of all windows of the books."""
    document, number = (BOOKS[key].astype(np.int64) for key in ("document", "number"))
    tokens, counts, held = BOOKS["tokens"].astype(float), np.bincount(document), []
    for seed in range(draws):
        totals = WindowSample(counts, num_windows, seed).totals(nll, expected, tokens, document, number, len(counts))
        held.append(abs(totals.y.sum() - nll.sum()) <= half_width(totals) * tokens.sum())
    return float(np.mean(held))


@pytest.mark.long
@pytest.mark.parametrize("num_windows", [32, 64, 128, 300, 600])
@pytest.mark.parametrize("beside", ["disjoint windows", "nothing"])
def test_coverage_on_windows_of_real_books(beside: str, num_windows: int) -> None:
    nll, tokens = BOOKS["nll"].astype(float), BOOKS["tokens"].astype(float)
    expected = BOOKS["expected"] if beside == "disjoint windows" else tokens * nll.sum() / tokens.sum()
    assert 0.93 <= share_held(nll, expected.astype(float), num_windows, 2000) <= 0.97


def failing(seed: int) -> np.ndarray:
    """Nats of the books' windows if a model lost 6 nats a token more in one later window of a hundred."""
    later = np.flatnonzero(BOOKS["number"] > 0)
    failed = np.random.default_rng(seed).choice(later, len(later) // 100, replace=False)
    nll = BOOKS["nll"].astype(float)
    nll[failed] += 6.0 * BOOKS["tokens"][failed]
    return nll


def test_rare_windows_that_fail_are_held_from_300_on() -> None:
    held = [share_held(failing(seed), BOOKS["expected"].astype(float), 300, 60) for seed in range(10)]
    assert np.mean(held) >= 0.9


@pytest.mark.long
@pytest.mark.parametrize("num_windows", [300, 400, 600])
def test_coverage_of_rare_windows_that_fail(num_windows: int) -> None:
    held = [share_held(failing(seed), BOOKS["expected"].astype(float), num_windows, 100) for seed in range(20)]
    assert np.mean(held) >= 0.9


def test_blocks_in_effect() -> None:
    """Of blocks that spread alike as many as there are on average, and one where it carries all."""
    errors = np.random.default_rng(0).normal(0, 3, (20_000, 16))
    freedom = 3 * np.square(errors).sum(1) ** 2 / (errors**4).sum(1) - 2
    assert np.mean(freedom) == pytest.approx(16, rel=0.1)
    found = [sampling_error(each) for each in errors[:500]]
    assert [error.effective_blocks for error in found] == pytest.approx(np.clip(freedom[:500], 1, 16))
    alone = sampling_error(np.array([0.0, 5.0, 0.0, 0.0]))
    assert alone == pytest.approx((12.706204736432095 * 5, 1, 1))  # Student's quantile of 1 degree of freedom
    assert sampling_error(np.array([np.nan, 1.0])) is None and sampling_error(np.zeros(4)) is None
