"""Two runs on the same windows, compared document by document."""

import math
from pathlib import Path
from typing import Any, NamedTuple

from lit_pi.errors import UserError
from lit_pi.evaluations.perplexity.definitions import DEFINITIONS
from lit_pi.evaluations.perplexity.score_tables import read_documents
from lit_pi.evaluations.records import latest
from lit_pi.evaluations.statistics.document_intervals import Figure, ratio, ratio_difference

KIND = "perplexity_curve"
"""The kind of its records in `results.json`."""


class PairedPerplexity(NamedTuple):
    """The loss or gain of another run against a baseline, on the documents that both measured.

    Attributes:
        evaluation: whose documents they are.
        definition: the definition of perplexity, by its name.
        context_length: in tokens.
        documents: that take part.
        baseline: figure of the baseline.
        other: figure of the other run.
        difference: mean loss of the other run less the baseline's, in nats a token (bits a byte for bits per byte),
            with its 95 % interval over documents.
        ratio: perplexity of the other run over the baseline's; None for bits per byte.
        better: `baseline` or `other` where the interval excludes zero and many documents carry it, else None.
    """

    evaluation: str
    definition: str
    context_length: int
    documents: int
    baseline: float
    other: float
    difference: Figure
    ratio: float | None
    better: str | None


def paired_perplexities(baseline: Path, other: Path) -> list[PairedPerplexity]:
    """The differences of two run directories, for every evaluation, definition and context length that both have.

    A run counts with its last test, or its last validation where it was never tested. A rerun is not needed: the
    tables of documents that the runs have written are read.

    Raises:
        UserError: a run has no results or was cut short, its table is gone, or both ran other windows under one name.
    """
    records, others = latest(baseline, KIND), latest(other, KIND)
    found = []
    for name in [name for name in records if name in others]:
        _check(name, (baseline, records[name]), (other, others[name]))
        first, second = (read_documents(run, record[name]) for run, record in ((baseline, records), (other, others)))
        for key, sums in first.items():
            if key in second and sums.x.any():
                found.append(_compare(name, key[0], key[1].context_length, sums, second[key]))
    return found


def _check(name: str, *runs: tuple[Path, dict[str, Any]]) -> None:
    for run, record in runs:
        if record["partial"]:
            raise UserError(f"{run} was cut short while it measured {name}: test it without limit_test_batches")
    (first, one), (second, two) = ((run, record["protocol"]) for run, record in runs)
    if one["windows_fingerprint"] != two["windows_fingerprint"]:
        raise UserError(
            f"{first} and {second} measured different windows as {name}: test both with the same documents, tokenizer, "
            "context_lengths, stride and bos"
        )
    if one["sampling"] != two["sampling"]:
        drawn = [sampling["num_windows"] for sampling in (one["sampling"], two["sampling"]) if sampling]
        seeds = {sampling["seed"] for sampling in (one["sampling"], two["sampling"]) if sampling}
        remedy = f"set num_windows: {max(drawn)} in both" + (" and the same seed" if len(seeds) > 1 else "")
        raise UserError(f"{first} and {second} drew different windows for {name}: {remedy}")


def _compare(evaluation: str, definition: str, context_length: int, first: Any, second: Any) -> PairedPerplexity:
    difference = ratio_difference(second.y, first.y, first.x).figure()
    exponential = DEFINITIONS[definition].exponential
    figures = [float(ratio(sums.y, sums.x).value) for sums in (first, second)]
    return PairedPerplexity(
        evaluation=evaluation,
        definition=definition,
        context_length=context_length,
        documents=int((first.x > 0).sum()),
        baseline=math.exp(figures[0]) if exponential else figures[0],
        other=math.exp(figures[1]) if exponential else figures[1],
        difference=difference,
        ratio=math.exp(difference.value) if exponential else None,
        better=("other" if difference.value < 0 else "baseline") if difference.tells else None,
    )
