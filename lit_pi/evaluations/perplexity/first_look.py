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
from lit_pi.evaluations.perplexity.pilot import choose
from lit_pi.evaluations.perplexity.token_scores import TokenScores, series_of
from lit_pi.evaluations.perplexity.window_batches import WindowBatches
from lit_pi.progress import progress

if TYPE_CHECKING:
    from lit_pi.evaluations.perplexity.perplexity import Perplexity

PROBE_SHARE = 0.03
"""A probe may read this share of the evaluation's tokens."""


def settle_windows(name: str, evaluation: "Perplexity", tokenizer: PreTrainedTokenizerFast, probe: Probe) -> None:
    """Run a pilot, and let it say what the evaluation runs for its `precision`."""
    assert evaluation.precision is not None
    pilot = evaluation.pilot()
    if pilot.complete:
        return
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
    num_windows, evaluation.control = choose(
        scores.compute(), evaluation.plan, evaluation.controls, pilot, evaluation.precision
    )
    evaluation.draw(num_windows)
    drawn = pilot.units if evaluation.sample is None else evaluation.sample.num_windows
    rank_zero_info(
        "Pilot of %s: %d of %d later windows are run, for an interval of ±%g%%",
        name, drawn, pilot.units, 100 * evaluation.precision,
    )  # fmt: skip


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
