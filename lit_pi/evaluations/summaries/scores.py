"""How good written summaries are: overlap with references, length, repetition and copying."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer
from torch import Tensor
from torchmetrics import Metric

from lit_pi.evaluations.statistics.document_intervals import cluster_mean

KIND = "summarization"
"""The kind of its records in `results.json`."""
NGRAM = 4
"""Words of the n-grams that are counted as repeated or copied."""
LABELS = {
    "rouge1": "ROUGE-1 (%)",
    "rouge2": "ROUGE-2 (%)",
    "rougeL": "ROUGE-L (%)",
    "tokens": "tokens",
    "capped": "at the limit (%)",
    "empty": "empty (%)",
    "repeated": f"{NGRAM}-grams repeated (%)",
    "copied": f"{NGRAM}-grams copied (%)",
}
"""The measures, as a person reads it."""


class SummaryMeasures(NamedTuple):
    """Measures of one summary; shares are 0 or 100 where they are of one summary.

    Attributes:
        rouge1: ROUGE-1 (Lin 2004), F measure with Porter's stemmer, in %.
        rouge2: ROUGE-2, likewise.
        rougeL: ROUGE-L of the whole text as one sequence, likewise; not ROUGE-Lsum, which is larger.
        tokens: how many the summary has, without the one that ended it.
        capped: whether it was cut off at the limit of new tokens, in %.
        empty: whether it has no word, in %.
        repeated: share of its 4-grams of words that occurred in it before, in % (Welleck et al. 2020, section 6).
        copied: share of its 4-grams of words that occur in the source, in % (See et al. 2017, section 6.2, reversed).
    """

    rouge1: float
    rouge2: float
    rougeL: float  # noqa: N815
    tokens: float
    capped: float
    empty: float
    repeated: float
    copied: float


class SummarySample(NamedTuple):
    """One summary to write.

    Attributes:
        document: index of what is summarised.
        seed: chooses the tokens that are drawn.
    """

    document: int
    seed: int


class WrittenSummary(NamedTuple):
    """A summary that was written.

    Attributes:
        sample: index in the evaluation.
        measures: what it comes to.
        token_ids: tokens of the summary.
    """

    sample: int
    measures: SummaryMeasures
    token_ids: list[int]


class MeasureMean(NamedTuple):
    """A measure over all summaries.

    Attributes:
        measure: its name in `SummaryMeasures`.
        mean: over summaries.
        low: lower end of its 95 % interval over documents; None of a single document.
        high: upper end.
        effective_documents: documents in effect.
        largest_share: the largest share of the variance that one document carries.
        seed_deviation: standard deviation of the seeds' own means; None of a single seed.
    """

    measure: str
    mean: float
    low: float | None
    high: float | None
    effective_documents: float | None
    largest_share: float | None
    seed_deviation: float | None


@cache
def _rouge() -> RougeScorer:
    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)


def measure(summary: str, reference: str, source: str, tokens: int, capped: bool) -> SummaryMeasures:
    """Measure a summary.

    Args:
        summary: as it was written.
        reference: what a person wrote.
        source: the text that is summarised.
        tokens: how many the summary has.
        capped: whether it was cut off at the limit of new tokens.
    """
    scores = _rouge().score(reference, summary)
    words = DefaultTokenizer(use_stemmer=False).tokenize  # lower case, letters and digits
    own, there = _ngrams(words(summary)), set(_ngrams(words(source)))
    return SummaryMeasures(
        rouge1=100 * scores["rouge1"].fmeasure,
        rouge2=100 * scores["rouge2"].fmeasure,
        rougeL=100 * scores["rougeL"].fmeasure,
        tokens=tokens,
        capped=100.0 * capped,
        empty=100.0 * (not words(summary)),
        repeated=100 * (1 - len(set(own)) / len(own)) if own else 0.0,
        copied=100 * sum(ngram in there for ngram in own) / len(own) if own else 0.0,
    )


def _ngrams(words: list[str]) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(NGRAM)), strict=False))


class SummaryScores(Metric):
    """Measures and tokens by sample, so that any number of batches and ranks give the same figures.

    Args:
        samples: how many summaries may be written.
        max_new_tokens: tokens of each, at most.
    """

    full_state_update = False
    written: Int[Tensor, " samples"]
    measures: Float[Tensor, "samples measure"]
    token_ids: Int[Tensor, "samples new"]

    def __init__(self, samples: int, max_new_tokens: int) -> None:
        super().__init__()
        self.add_state("written", torch.zeros(samples, dtype=torch.int64), dist_reduce_fx="sum")
        shape = samples, len(SummaryMeasures._fields)
        self.add_state("measures", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("token_ids", torch.zeros(samples, max_new_tokens, dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self, indices: Int[Tensor, " batch"], measures: Sequence[SummaryMeasures], token_ids: Int[Tensor, "batch new"]
    ) -> None:
        """Add a batch.

        Args:
            indices: each row's sample.
            measures: each row's.
            token_ids: 0 after a summary's end.
        """
        self.written.index_add_(0, indices, torch.ones_like(indices))
        # A batch may hold nothing but rows that fill up.
        values = torch.tensor(measures).to(self.measures).reshape(-1, len(SummaryMeasures._fields))
        self.measures.index_copy_(0, indices, values)
        self.token_ids.index_copy_(0, indices, token_ids)

    def compute(self) -> list[WrittenSummary]:
        """The summaries that were written, in their order."""
        found = []
        for sample in self.written.nonzero()[:, 0].tolist():
            measures = SummaryMeasures(*self.measures[sample].tolist())
            found.append(WrittenSummary(sample, measures, self.token_ids[sample, : int(measures.tokens)].tolist()))
        return found


def means(summaries: Sequence[WrittenSummary], samples: Sequence[SummarySample]) -> list[MeasureMean]:
    """The mean of every measure; of no summaries, none.

    Args:
        summaries: that were written.
        samples: samples of the evaluation; summaries of one document are one cluster.
    """
    found = []
    documents = [samples[summary.sample].document for summary in summaries]
    seeds = [samples[summary.sample].seed for summary in summaries]
    for place, name in enumerate(SummaryMeasures._fields if summaries else ()):
        values = [summary.measures[place] for summary in summaries]
        own = [
            torch.tensor([value for value, other in zip(values, seeds, strict=True) if other == seed]).mean()
            for seed in sorted(set(seeds))
        ]
        deviation = float(torch.stack(own).std()) if len(own) > 1 else None
        found.append(MeasureMean(name, *cluster_mean(values, documents), deviation))
    return found
