"""How many windows make an interval as narrow as asked, judged from a few of them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import chi2
from scipy.stats import t as student

from lit_pi.evaluations.perplexity.sampled.control import expected_losses
from lit_pi.evaluations.perplexity.sampled.sampling import PER_BLOCK, WindowSample
from lit_pi.evaluations.perplexity.token_scores import TokenLosses
from lit_pi.evaluations.perplexity.window_sums import window_sums
from lit_pi.evaluations.perplexity.windows import WindowPlan
from lit_pi.evaluations.statistics.block_intervals import sampling_error
from lit_pi.evaluations.statistics.settled import unsettled

PILOT_WINDOWS = 64
SMALLEST = 32
STEP = math.sqrt(2)
"""Numbers of windows grow by this factor, so that strategies whose losses spread alike draw the same windows."""
CERTAINTY = 0.8
"""Probability that the pilot's windows do not make the spread look smaller than it is."""


class Choice(NamedTuple):
    """The windows to run.

    Attributes:
        num_windows: how many windows to draw beside first ones, or as many as there are.
        disjoint: the windows that do not overlap to score beside them.
        unsettled: why the pilot is too small to say so, if it is: a few of its blocks carry the variance.
    """

    num_windows: int
    disjoint: Sequence[WindowPlan]
    unsettled: str | None


def choose(
    losses: TokenLosses,
    plan: WindowPlan,
    controls: Sequence[Sequence[WindowPlan]],
    pilot: WindowSample,
    precision: float,
) -> Choice:
    """Choose the windows that read the fewest tokens for an interval as narrow as asked.

    Disjoint windows of the longest context length tell of all context lengths in one pass. Where a model fails at long
    contexts they do not tell of short ones, and a pass for each context length is worth its price.

    Args:
        losses: losses of the pilot's windows, and of the disjoint ones that hold what they score.
        plan: the plan of the windows.
        controls: disjoint windows that may be scored beside them, each with those of the longest context length.
        pilot: what was drawn of them.
        precision: half the width of the 95 % interval of all windows' perplexity, over that perplexity, at every
            context length.
    """
    choices = [windows_needed(losses, plan, some, pilot, precision) for some in controls]
    tokens = int(losses.offsets[-1])
    return min(choices, key=lambda each: each.num_windows * plan.context_lengths[-1] + len(each.disjoint) * tokens)


def windows_needed(
    losses: TokenLosses, plan: WindowPlan, disjoint: Sequence[WindowPlan], pilot: WindowSample, precision: float
) -> Choice:
    """How many windows to draw beside first ones, or as many as there are; for some of `choose`'s controls."""
    needed, reason, expected = SMALLEST, None, expected_losses(losses, plan, disjoint)
    for length in plan.context_lengths:
        windows = window_sums(losses, plan, length, 0, None)
        drawn = windows.run & (windows.number > 0)
        deviation = np.where(drawn, windows.nll - window_sums(expected, plan, length, 0, None).nll, 0.0)
        errors = pilot.errors(deviation, windows.document, windows.number)
        if (error := sampling_error(errors)) is None:  # the model has diverged, which no number of windows changes
            continue
        reason = reason or unsettled(error.effective_blocks, error.largest_share, "block")
        share = pilot.num_windows / pilot.units
        variance = np.square(errors).sum() * share / (1 - share)  # if half of them were drawn
        variance *= error.effective_blocks / chi2.ppf(1 - CERTAINTY, error.effective_blocks)
        target = math.log1p(precision) * windows.tokens.sum()
        blocks = error.effective_blocks / pilot.num_windows
        while needed < pilot.units and _half_width(needed, pilot.units, variance, blocks) > target:
            needed = PER_BLOCK * math.ceil(needed * STEP / PER_BLOCK)
    return Choice(min(needed, pilot.units), disjoint, reason)


def _half_width(drawn: int, units: int, variance: float, blocks: float) -> float:
    """Half the width of the interval of a sum over all units, of which some are drawn.

    Args:
        drawn: how many.
        units: all windows beside first ones.
        variance: variance of the sum, if half of them were drawn.
        blocks: blocks in effect for each unit that is drawn.
    """
    error = math.sqrt(variance * (units - drawn) / drawn)
    return float(student.ppf(0.975, max(drawn * blocks, 1.0))) * error
