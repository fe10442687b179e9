"""Findings of a report: paired differences of every model from the first arm's, and the sentence at its top."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from lit_pi.errors import UserError
from lit_pi.evaluations.perplexity.paired import KIND, paired_perplexities
from lit_pi.evaluations.perplexity.score_tables import DocumentSums, read_documents
from lit_pi.evaluations.perplexity.token_scores import Series
from lit_pi.evaluations.records import latest
from lit_pi.evaluations.statistics.document_intervals import Figure, ratio_difference
from lit_pi.evaluations.statistics.significance import FEW_SEEDS, LEVEL, holm, p_value, seed_error, with_seeds
from lit_pi.report.entries import Entry

DEFINITION = "token_weighted"
"""The definition of perplexity that is compared."""


class Comparison(NamedTuple):
    """A model's loss against that of the first arm after as many steps, on the same tokens.

    Attributes:
        evaluation: the evaluation's name.
        steps: optimizer steps of both.
        arm: the name of the arm.
        context_length: in tokens.
        difference: mean loss less the first arm's, in nats a token, with its 95 % interval: over documents, and over
            seeds too where there are three or more.
        seeds: trainings of each that were measured.
        p: adjusted by Holm over all comparisons of the evaluation.
    """

    evaluation: str
    steps: int
    arm: str
    context_length: int
    difference: Figure
    seeds: int
    p: float

    @property
    def verdict(self) -> Literal["better", "worse", "tied"]:
        """Whether the model is better or worse, or no difference is certain."""
        if self.p > LEVEL or not self.difference.tells:
            return "tied"
        return "better" if self.difference.value < 0 else "worse"

    @property
    def change(self) -> float:
        """The perplexity's difference as a share of the first arm's."""
        return math.exp(self.difference.value) - 1


class Findings(NamedTuple):
    """All that a report finds.

    Attributes:
        comparisons: differences from the first arm.
        refused: why some entries cannot be compared.
        sentence: the conclusion; empty where nothing was compared.
    """

    comparisons: list[Comparison]
    refused: list[str]
    sentence: str


def findings(entries: Sequence[Entry]) -> Findings:
    """Compare entries, and say what was found."""
    found, refused = comparisons(entries)
    return Findings(found, refused, conclusion(entries, found))


Sums = list[dict[Series, DocumentSums]]
"""The documents' sums by context length, of each seed."""


def comparisons(entries: Sequence[Entry]) -> tuple[list[Comparison], list[str]]:
    """Compare every entry with the first arm's after as many steps; and say why some cannot be compared."""
    found: list[Comparison] = []
    refused: list[str] = []
    for first in [entry for entry in entries if entry.arm == entries[0].arm]:
        others = []
        for entry in entries:
            if entry.steps != first.steps or entry.arm == first.arm:
                continue
            try:  # of what was measured otherwise
                for one, other in zip(first.runs, entry.runs, strict=False):
                    paired_perplexities(one.directory, other.directory)
                others.append(entry)
            except UserError as error:
                refused.append(f"not compared: {error}")
        if others:
            found += _compared(first, others)
    return _corrected(found), refused


def _corrected(found: Sequence[Comparison]) -> list[Comparison]:
    adjusted: dict[int, float] = {}
    for name in dict.fromkeys(each.evaluation for each in found):
        places = [place for place, each in enumerate(found) if each.evaluation == name]
        adjusted |= dict(zip(places, holm([found[place].p for place in places]), strict=True))
    return [each._replace(p=adjusted[place]) for place, each in enumerate(found)]


def _compared(first: Entry, others: Sequence[Entry]) -> Iterator[Comparison]:
    """Compare entries after as many steps with the first of them."""
    for name in latest(first.runs[0].directory, KIND):
        having = [entry for entry in others if name in latest(entry.runs[0].directory, KIND)]
        sums: dict[str, Sums] = {
            entry.arm: [_sums(run.directory, name) for run in entry.runs] for entry in (first, *having)
        }
        for series in sums[first.arm][0]:
            there = {arm: [each[series] for each in own] for arm, own in sums.items() if all(series in s for s in own)}
            seeds = min(map(len, there.values()))
            losses = [[float(each.y.sum() / each.x.sum()) for each in own] for own in there.values()]
            error = seed_error(losses) if seeds >= FEW_SEEDS else None
            base = there.pop(first.arm)
            for arm, own in there.items():
                one, two = (np.mean([each.y for each in side], axis=0) for side in (base, own))
                figure = ratio_difference(two, one, base[0].x).figure()
                p = p_value(figure, error)
                figure = with_seeds(figure, error) if error else figure
                yield Comparison(name, first.steps, arm, series.context_length, figure, seeds, p)


def _sums(directory: Path, name: str) -> dict[Series, DocumentSums]:
    found = read_documents(directory, latest(directory, KIND)[name])
    return {series: sums for (definition, series), sums in found.items() if definition == DEFINITION}


def conclusion(entries: Sequence[Entry], found: Sequence[Comparison]) -> str:
    """One sentence that says what was found at the longest context length after the most steps, or that nothing was."""
    if not found:
        return ""
    steps, evaluation = max(each.steps for each in found), found[0].evaluation
    length = max(each.context_length for each in found if each.steps == steps and each.evaluation == evaluation)
    these = [each for each in found if (each.steps, each.context_length) == (steps, length)]
    these = sorted((each for each in these if each.evaluation == evaluation), key=lambda each: each.difference.value)
    better, worse = ([each for each in these if each.verdict == side] for side in ("better", "worse"))
    tied = [each for each in these if each.verdict == "tied"]
    seeds = min(each.seeds for each in these)
    what = "" if steps == 0 else "the checkpoint of " if seeds < FEW_SEEDS else ""
    when = f"after {steps:,} steps" if steps else "without training"
    baseline = f"{what}{entries[0].arm}"
    parts = [f"{what}{each.arm} has {_share(each.change)} lower perplexity" for each in better]
    parts += [f"{what}{each.arm} has {_share(each.change)} higher perplexity" for each in worse]
    if tied:
        parts.append(f"no difference is certain for {', '.join(each.arm for each in tied)}")
    said = f"At {length:,} tokens of {evaluation}, {when}, compared with {baseline}: {'; '.join(parts)}."
    if steps and 1 <= seeds < FEW_SEEDS and (better or worse):
        said += f" This is of these checkpoints: with {FEW_SEEDS} seeds it would be of the strategies."
    return said


def _share(change: float) -> str:
    return f"{abs(change):.1%}" if abs(change) >= 0.0005 else "less than 0.1%"
