"""What is scored before an evaluation begins: a pilot that says how many windows it needs, and what it will cost."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from math import prod
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from transformers import PreTrainedTokenizerFast

from lit_pi.batches import ScoringBatch
from lit_pi.data.ranks import data_ranks
from lit_pi.evaluations.perplexity.perplexity import Perplexity, WindowBatches
from lit_pi.evaluations.perplexity.pilot import choose
from lit_pi.evaluations.perplexity.token_scores import TokenScores, series_of
from lit_pi.progress import progress

PROBE_SHARE = 0.03
"""A probe may read this share of the evaluation's tokens."""

Score = Callable[[ScoringBatch], Sequence[torch.Tensor]]


@contextmanager
def scoring(trainer: Trainer) -> Iterator[Score]:
    """The trainer's step as its loop will run it: on the device, wrapped, in evaluation mode, without gradients.

    The loop asks for its dataloaders when the model is loaded and in place, so a step may run before the first batch.
    Every rank has to run as many.
    """
    module, strategy = trainer.lightning_module, trainer.strategy
    step = strategy.test_step if trainer.testing else strategy.validation_step

    def score(batch: ScoringBatch) -> Sequence[torch.Tensor]:
        outputs: Any = step(strategy.batch_to_device(batch), 0)
        return outputs["token_nll"]

    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield score
    finally:
        for part, training in modes.items():
            part.training = training


def settle_windows(trainer: Trainer, name: str, evaluation: Perplexity, tokenizer: PreTrainedTokenizerFast) -> None:
    """Run a pilot, and let it say what the evaluation runs for its `precision`."""
    assert evaluation.precision is not None
    pilot = evaluation.pilot()
    if pilot.complete:
        return
    ranks = data_ranks(trainer)
    batches = evaluation.pilot_batches(name, tokenizer, ranks.size, pilot)
    plans = (evaluation.plan, *evaluation.plan.disjoint())
    scores = TokenScores(series_of(plans), evaluation.lengths.tolist()).to(trainer.strategy.root_device)
    scores.process_group = ranks.group
    own = range(ranks.rank, len(batches), ranks.size)
    with scoring(trainer) as score:
        for index in progress(f"Pilot of {name}", own):
            batch: ScoringBatch = trainer.strategy.batch_to_device(batches[index])
            scores.update(batch.spans, score(batch), batch.targets, batch.scored, batch.documents, batch.begins)
    num_windows, evaluation.control = choose(
        scores.compute(), evaluation.plan, evaluation.controls, pilot, evaluation.precision
    )
    evaluation.draw(num_windows)
    drawn = pilot.units if evaluation.sample is None else evaluation.sample.num_windows
    rank_zero_info(
        "Pilot of %s: %d of %d later windows are run, for an interval of ±%g%%",
        name, drawn, pilot.units, 100 * evaluation.precision,
    )  # fmt: skip


def preview(trainer: Trainer, name: str, batches: WindowBatches) -> None:
    """Say what an evaluation will cost: windows, tokens, and the time where it is long enough to measure first."""
    ranks, rank, *_ = data_ranks(trainer)
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
    longest = max(probed)
    if ranks * (longest * probed[longest] + sum(map(prod, probed.items()))) > PROBE_SHARE * tokens:
        rank_zero_info("%s", cost)
        return
    seconds = 0.0
    with scoring(trainer) as score:
        _timed(score, batches[largest[longest] + rank])  # warms up
        for length, index in largest.items():
            seconds += _timed(score, batches[index + rank]) * rows[length] / (ranks * probed[length])
    rank_zero_info("%s, about %s", cost, timedelta(seconds=max(1, round(seconds))))


def _timed(score: Score, batch: ScoringBatch) -> float:
    start = time.perf_counter()
    float(score(batch)[0].sum())  # waits for the device
    return time.perf_counter() - start
