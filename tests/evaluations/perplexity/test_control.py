"""What disjoint windows say of overlapping ones."""

import itertools

import numpy as np
import pytest

from lit_pi.evaluations.perplexity.sampled.control import expected_losses
from lit_pi.evaluations.perplexity.token_scores import Series, TokenLosses, series_of
from lit_pi.evaluations.perplexity.windows import WindowPlan

LENGTHS = [40, 300, 7, 160]


def stored(plan: WindowPlan, loss: dict[int, float] | None = None) -> TokenLosses:
    """Losses that fall with the context that a disjoint window gives, at other levels for each context length."""
    offsets = np.concatenate(([0], np.cumsum(LENGTHS)))
    nll = {series: np.full(offsets[-1], np.nan, np.float32) for series in series_of(plan.disjoint())}
    for disjoint in plan.disjoint():
        (length,) = disjoint.context_lengths
        for offset, tokens in zip(offsets[:-1], LENGTHS, strict=True):
            bounds = disjoint.bounds(length, tokens)
            for start, stop in itertools.pairwise(bounds):
                places = np.arange(stop - start)
                extra = (loss or {}).get(length, 0.0)
                nll[Series("disjoint", length)][offset + start : offset + stop] = 2 + extra + 1 / (1 + places // 4)
    return TokenLosses(offsets, nll)


@pytest.mark.parametrize("passes", [2, 1])
@pytest.mark.parametrize("bos", ["every", "first", "none"])
def test_losses_that_follow_from_the_context_are_expected_as_they_are(bos: str, passes: int) -> None:
    """Whatever a token's place, what it lacks in context is added: all that is left is the width of a bucket.

    Windows of the longest context length tell of the other too, as whose first tokens theirs stand.
    """
    plan = WindowPlan([17, 65], 8, bos)
    losses = stored(plan)
    expected = expected_losses(losses, plan, plan.disjoint()[-passes:])
    for length in (17, 65):
        values = expected.nll[Series("sliding", length)]
        unscored = int(bos == "none")
        inside = np.concatenate([np.arange(tokens) >= unscored for tokens in LENGTHS])
        assert np.isnan(values[~inside]).all()
        full = 2 + 1 / (1 + (length - 5) // 4)
        assert values[inside] == pytest.approx(full, abs=0.15)
        assert values[inside].std() < 0.1 * losses.nll[Series("disjoint", length)][inside].std()


def test_the_pass_that_gives_the_most_similar_context_is_asked_unless_it_fails() -> None:
    plan = WindowPlan([17, 65], 8, "every")
    noise = np.random.default_rng(0).normal(0, 0.01, sum(LENGTHS)).astype(np.float32)
    start = LENGTHS[0] + 64 + 16  # where a window of 17 begins, and one of 65 has a quarter of its tokens behind it
    for failing, asked in (({65: 5.0}, 17), ({}, 65)):
        losses = stored(plan, failing)
        losses.nll[Series("disjoint", 65)] += noise
        found = expected_losses(losses, plan, plan.disjoint()).nll[Series("sliding", 17)][start : start + 4]
        assert (np.ptp(found - noise[start : start + 4]) < 1e-5) == (asked == 65)
        losses.nll[Series("disjoint", 65)][:] = np.nan
        assert np.isfinite(expected_losses(losses, plan, plan.disjoint()).nll[Series("sliding", 17)]).all()
