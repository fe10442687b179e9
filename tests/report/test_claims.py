"""Arms that differ in their seeds alone are tied; one that is 1 % better is found. Losses are drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_pi.evaluations.perplexity.score_tables import DocumentSums
from lit_pi.evaluations.perplexity.token_scores import Series
from lit_pi.evaluations.records import Run
from lit_pi.report import analysis
from lit_pi.report.analysis import comparisons, conclusion
from lit_pi.report.entries import Entry

LENGTHS = (256, 512, 1024, 2048)
DOCUMENTS, TOKENS, SEEDS = 20, 2000.0, 3
OF_SEEDS, OF_DOCUMENTS = 0.0015, 0.004
"""Nats by which trainings differ from seed to seed: all documents alike, and each by itself."""


def drawn(chance: np.random.Generator, monkeypatch: pytest.MonkeyPatch, better: float) -> list[Entry]:
    """Two arms of three seeds each on the same documents, the second by so many nats better."""
    documents = chance.normal(2.0, 0.3, (len(LENGTHS), DOCUMENTS))
    tables = {}
    entries = []
    for arm, gain in (("one", 0.0), ("two", better)):
        runs = tuple(Run(f"{arm} {seed}", Path(f"{arm}-{seed}")) for seed in range(SEEDS))
        for run in runs:
            noise = chance.normal(0, OF_SEEDS) + chance.normal(0, OF_DOCUMENTS, documents.shape)
            sums = [DocumentSums([], TOKENS * row, np.full(DOCUMENTS, TOKENS)) for row in documents + noise - gain]
            tables[run.directory] = {Series("sliding", n): each for n, each in zip(LENGTHS, sums, strict=True)}
        entries.append(Entry(arm, 60, runs))
    named: dict[str, Any] = {"texts": {}}
    monkeypatch.setattr(analysis, "latest", lambda directory, kind: named)
    monkeypatch.setattr(analysis, "paired_perplexities", lambda *_: [])
    monkeypatch.setattr(analysis, "_sums", lambda directory, name: tables[directory])
    return entries


@pytest.mark.parametrize(("better", "least_tied", "least_found"), [(0.0, 0.95, 0.0), (0.01, 0.0, 0.8)])
def test_differences_of_seeds_are_tied_and_true_ones_are_found(
    better: float, least_tied: float, least_found: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, tied, found, repeats = np.random.default_rng(3), 0, 0, 200
    for _ in range(repeats):
        each, refused = comparisons(drawn(chance, monkeypatch, better))
        assert not refused
        tied += all(one.verdict == "tied" for one in each)
        found += all(one.verdict == "better" for one in each)
    assert tied / repeats >= least_tied
    assert found / repeats >= least_found


def test_a_sentence_about_strategies_needs_three_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = drawn(np.random.default_rng(0), monkeypatch, 0.05)
    said = conclusion(entries, comparisons(entries)[0])
    assert said == "At 2,048 tokens of texts, after 60 steps, compared with one: two has 4.9% lower perplexity."
    alone = [entry._replace(runs=entry.runs[:1]) for entry in entries]
    said = conclusion(alone, comparisons(alone)[0])
    assert "compared with the checkpoint of one: the checkpoint of two has " in said
    assert said.endswith("with 3 seeds it would be of the strategies.")


def test_nothing_is_said_where_nothing_was_compared() -> None:
    assert conclusion([], []) == ""
