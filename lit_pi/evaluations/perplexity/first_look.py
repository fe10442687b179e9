"""Scoring before perplexity is measured: a pilot that says how many windows it needs, and what it will cost."""

import time
from collections import Counter
from datetime import timedelta
from math import prod
from typing import TYPE_CHECKING

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from transformers import PreTrainedTokenizerFast

from lit_pi.batches import ScoringBatch
from lit_pi.evaluations.evaluation import Probe
from lit_pi.evaluations.perplexity.sampled.pilot import PILOT_WINDOWS, choose
from lit_pi.evaluations.perplexity.sampled.sampling import WindowSample
from lit_pi.evaluations.perplexity.token_scores import TokenLosses, TokenScores, series_of
from lit_pi.evaluations.perplexity.window_batches import WindowBatches
from lit_pi.progress import progress

if TYPE_CHECKING:
    from lit_pi.evaluations.perplexity.perplexity import Perplexity

PROBE_SHARE = 0.03
"""A probe may read this share of the evaluation's tokens."""


def settle_windows(name: str, evaluation: "Perplexity", tokenizer: PreTrainedTokenizerFast, probe: Probe) -> None:
    """Run a pilot, and let it say what the evaluation runs for its `precision`.

    A pilot that a few blocks of windows carry says too little, and a larger one is drawn, up to half of all windows.
    """
    assert evaluation.precision is not None
    pilot, choice = evaluation.pilot(), None
    while not pilot.complete:
        losses = _scored(name, evaluation, tokenizer, probe, pilot)
        choice = choose(losses, evaluation.plan, evaluation.controls, pilot, evaluation.precision)
        if choice.unsettled is None:
            break
        rank_zero_info("Pilot of %s: %s; more windows are drawn", name, choice.unsettled)
        pilot = evaluation.pilot(2 * pilot.num_windows)
    if choice is None:
        return
    evaluation.control = choice.disjoint
    if choice.unsettled is not None:
        rank_zero_info("Pilot of %s: no sample of windows is settled: all of them are run", name)
        return
    # Fewer than the pilot's, a few blocks might carry them again.
    grown = pilot.num_windows if pilot.num_windows > PILOT_WINDOWS else 0
    evaluation.draw(max(choice.num_windows, grown))
    drawn = pilot.units if evaluation.sample is None else evaluation.sample.num_windows
    rank_zero_info(
        "Pilot of %s: %d of %d later windows are run, for an interval of ±%g%%",
        name, drawn, pilot.units, 100 * evaluation.precision,
    )  # fmt: skip


def _scored(
    name: str, evaluation: "Perplexity", tokenizer: PreTrainedTokenizerFast, probe: Probe, pilot: WindowSample
) -> TokenLosses:
    """Score the windows of a pilot, and the disjoint ones that hold what they score, on all ranks."""
    ranks = probe.ranks
    batches = evaluation.pilot_batches(name, tokenizer, ranks.size, pilot)
    plans = (evaluation.plan, *evaluation.plan.disjoint())
    scores = TokenScores(series_of(plans), evaluation.lengths.tolist()).to(probe.device)
    scores.process_group = ranks.group
    own = range(ranks.rank, len(batches), ranks.size)
    for index in progress(f"Pilot of {name}", own):
        batch = batches[index]
        token_nll = probe.score(batch)
        scored, targets = batch.scored.to(probe.device), batch.targets.to(probe.device)
        documents, begins = batch.documents.to(probe.device), batch.begins.to(probe.device)
        scores.update(batch.spans, token_nll, targets, scored, documents, begins)
    return scores.compute()


def preview(name: str, batches: WindowBatches, probe: Probe) -> None:
    """Say what an evaluation will cost: windows, tokens, and the time where it is long enough to measure first."""
    ranks, rank, *_ = probe.ranks
    rows: Counter[int] = Counter()
    largest: dict[int, int] = {}  # of every length, where a round of as large batches as any begins
    for index, (shape, batch) in enumerate(batches.planned):
        rows[shape.length] += len(batch)
        begin = index - index % ranks
        if len(batch) > len(batches.planned[largest.setdefault(shape.length, begin)][1]):
            largest[shape.length] = begin
    tokens = sum(length * count for length, count in rows.items())
    windows = sum(window.document >= 0 for _, batch in batches.planned for window in batch)
    cost = f"{name}: {windows:,} windows, {tokens:,} tokens to read"
    probed = {length: len(batches.planned[index][1]) for length, index in largest.items()}
    if 2 * ranks * sum(map(prod, probed.items())) > PROBE_SHARE * tokens:
        rank_zero_info("%s", cost)
        return
    for index in largest.values():  # each shape may be compiled
        _timed(probe, batches[index + rank])
    seconds = 0.0
    for length, index in largest.items():
        seconds += _timed(probe, batches[index + rank]) * rows[length] / (ranks * probed[length])
    rank_zero_info("%s, about %s", cost, timedelta(seconds=max(1, round(seconds))))


def _timed(probe: Probe, batch: ScoringBatch) -> float:
    start = time.perf_counter()
    float(probe.score(batch)[0].sum())  # waits for the device
    return time.perf_counter() - start
