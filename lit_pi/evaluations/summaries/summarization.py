"""Summaries of long documents."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from lit_pi.batches import Decoding, GenerationBatch
from lit_pi.data.corpora.corpus import Corpus, Document, Split, content_hash
from lit_pi.data.documents.overlap import Hashes, as_hashes
from lit_pi.data.generation import GenerationBatches, PromptEncoder, PromptSample, continuation, decoding_of
from lit_pi.data.tokenizer import first_tokens, plain_backend, tokenizer_fingerprint
from lit_pi.errors import UserError
from lit_pi.evaluations.evaluation import Evaluation, Found, Results
from lit_pi.evaluations.selection import at_most
from lit_pi.evaluations.summaries.scores import (
    KIND,
    NGRAM,
    SummaryMeasures,
    SummarySample,
    SummaryScores,
    means,
    measure,
)
from lit_pi.evaluations.summaries.tables import summary_tables
from lit_pi.evaluations.tables import Table
from lit_pi.progress import progress
from lit_pi.ranges import BatchSize, Count, NotNegative, Seed, Share, Tokens, in_range

AT_ONCE = 16
"""Long documents that are cut together."""


class Summarization(Evaluation):
    """Writes summaries, and compares them with those of people (Chen et al. 2023, section 3.5).

    The corpus' prompts are continued, and its texts are the references: `GovReportCorpus` with `learn: summary` has
    both, and its `max_report_tokens` says how much of a report is read; how many reports were cut is told. Beside
    ROUGE, which depends on the length, stand length, cap rate, repetition and copying (see `SummaryMeasures`).

    Args:
        corpus: documents with prompts.
        split: which of them.
        context_length: tokens that `<bos>`, prompt and summary may have; a prompt that does not fit is an error.
        max_new_tokens: tokens of a summary at most.
        temperature: divides the logits; 0 takes the most likely token each time.
        top_p: samples from the fewest tokens whose probabilities sum to at least this.
        seeds: every document is summarised once for each; a summary depends neither on its batch nor on its rank.
        stop_at_eos: whether the tokenizer's end-of-text token ends a summary.
        batch_size: summaries that are written together.
        max_documents: how many documents to summarise, a random choice; None for all.
        seed: chooses the documents.
        every_n_steps: during `fit`, measure at steps that are multiples of this; None for every validation.

    Raises:
        UserError: an option is out of its range.
    """

    kind = KIND
    folder = "summaries"

    @in_range
    def __init__(
        self,
        corpus: Corpus,
        split: Split = "test",
        context_length: Tokens = 16384,
        max_new_tokens: Tokens = 1000,
        temperature: NotNegative = 0.5,
        top_p: Share = 0.95,
        seeds: Sequence[Seed] = (0, 1, 2),
        stop_at_eos: bool = True,
        batch_size: BatchSize = 1,
        max_documents: Count | None = None,
        seed: Seed = 0,
        every_n_steps: Count | None = None,
    ) -> None:
        super().__init__(every_n_steps)
        if not seeds or len(set(seeds)) < len(seeds):
            raise UserError(f"seeds of the Summarization evaluation are {list(seeds)}: give different ones from 0 on")
        if temperature == 0 and len(seeds) > 1:
            raise UserError(
                "temperature 0 writes the same summary for every seed: give the Summarization evaluation one seed"
            )
        self.corpus = corpus
        self.split: Split = split
        self.context_length = context_length
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.top_p = top_p
        self.seeds = tuple(seeds)
        self.stop_at_eos = stop_at_eos
        self.batch_size = batch_size
        self.max_documents = max_documents
        self.seed = seed
        self.documents: list[Document] = []
        self.samples: list[SummarySample] = []
        self._prompts: list[PromptSample] = []
        self._decoding = Decoding(max_new_tokens)
        self._tokenizer: PreTrainedTokenizerFast | None = None
        self._left_out = 0

    def prepare(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Read, cut and encode the documents.

        Raises:
            UserError: there are none, they have no prompts or summaries, or a prompt does not fit.
        """
        if self.documents:
            return
        self._decoding = decoding_of(tokenizer, self.max_new_tokens, self.temperature, self.top_p, self.stop_at_eos)
        found = [item for item in self.corpus.documents(self.split) if isinstance(item, Document)]
        places = at_most(np.arange(len(found)), self.max_documents, self.seed)
        self._left_out = len(found) - len(places)
        chosen = [found[place] for place in places.tolist()]
        self._hashes = as_hashes([content_hash(document) for document in chosen])
        documents = self._limited(chosen, tokenizer)
        self._check(documents)
        encoded = PromptEncoder(tokenizer).prompts([document.prompt for document in documents], "Encoding documents")
        prompts = list(encoded)
        for document, prompt in zip(documents, prompts, strict=True):
            total = len(prompt) + self.max_new_tokens
            if total > self.context_length:
                raise UserError(
                    f"the prompt of {document.id} takes {len(prompt):,} tokens, and with max_new_tokens "
                    f"{self.max_new_tokens:,} more than context_length {self.context_length:,} of the Summarization "
                    f"evaluation: set that to {total} or more, or limit what the corpus reads"
                )
        for index, prompt in enumerate(prompts):
            for seed in self.seeds:
                # Drawn by the place in the split, so that a choice of documents changes no summary.
                place, total = int(places[index]), len(prompt) + self.max_new_tokens
                self.samples.append(SummarySample(index, seed))
                self._prompts.append(PromptSample(prompt, total, seed, place))
        self.documents, self._tokenizer = documents, tokenizer

    def _limited(self, documents: list[Document], tokenizer: PreTrainedTokenizerFast) -> list[Document]:
        cut = partial(first_tokens, plain_backend(tokenizer))
        found = []
        for start in progress("Cutting documents", range(0, len(documents), AT_ONCE)):
            found += self.corpus.limited(documents[start : start + AT_ONCE], cut)
        return found

    def _check(self, documents: list[Document]) -> None:
        where = f"{self.corpus.name}, {self.split}"
        if not documents:
            raise UserError(f"there are no documents to summarise in {where}: add some")
        for document in documents:
            if not document.prompt or not document.text.strip():
                what = "summary to compare with" if document.prompt else "prompt to continue"
                raise UserError(
                    f"document {document.id} of {where}, has no {what}: name a corpus of documents and summaries, as "
                    "GovReportCorpus with learn: summary"
                )

    def batches(self, name: str, tokenizer: PreTrainedTokenizerFast, world_size: int) -> GenerationBatches:
        """All prompts, one for each seed."""
        return GenerationBatches(name, self._prompts, self._decoding, self.batch_size, world_size)

    def metric(self) -> SummaryScores:
        """Return measures of each summary."""
        return SummaryScores(len(self.samples), self.max_new_tokens)

    def add(self, metric: SummaryScores, outputs: dict[str, Any], batch: GenerationBatch) -> None:
        """Measure a batch of summaries, on the rank that wrote them."""
        real = batch.documents >= 0
        samples, token_ids = batch.documents[real], outputs["token_ids"][real]
        lengths, stopped = outputs["lengths"][real].tolist(), outputs["stopped"][real].tolist()
        rows = zip(samples.tolist(), token_ids.tolist(), lengths, stopped, strict=True)
        measures = [self.measure(sample, row[:length], end) for sample, row, length, end in rows]
        metric.update(samples, measures, token_ids)

    def results(self, metric: SummaryScores, model: Mapping[str, Any]) -> Results:
        """Return means, their intervals over documents and the deviation between seeds, and every summary."""
        summaries = metric.compute()
        found = means(summaries, self.samples)
        samples = [self.samples[summary.sample] for summary in summaries]
        items: dict[str, list[Any]] = {
            "id": [self.documents[sample.document].id for sample in samples],
            "seed": [sample.seed for sample in samples],
        }
        for place, measured in enumerate(SummaryMeasures._fields):
            items[measured] = [summary.measures[place] for summary in summaries]
        items["summary"] = [self.text(summary.sample, summary.token_ids) for summary in summaries]
        record = {
            "summaries": len(samples),
            "documents": len({sample.document for sample in samples}),
            "measures": [entry._asdict() for entry in found],
        }
        return Results(record, {f"summaries/{entry.measure}": entry.mean for entry in found}, items)

    @classmethod
    def tables(cls, found: Found) -> list[Table]:
        """Return what the summaries come to."""
        return summary_tables(found)

    def text(self, sample: int, token_ids: Sequence[int]) -> str:
        """The summary that tokens make after a sample's prompt."""
        assert self._tokenizer is not None
        return continuation(self._tokenizer, self._prompts[sample].tokens.tolist(), token_ids).strip()

    def measure(self, sample: int, token_ids: Sequence[int], stopped: bool) -> SummaryMeasures:
        """Measure a summary.

        Args:
            sample: which one it is.
            token_ids: its tokens.
            stopped: whether the model ended it.
        """
        document = self.documents[self.samples[sample].document]
        summary, reference = self.text(sample, token_ids), document.text.strip()
        return measure(summary, reference, document.prompt, len(token_ids), not stopped)

    def document_hashes(self) -> Hashes:
        """Return those of the documents, whose summaries may have been learnt."""
        return self._hashes

    def describe(self) -> dict[str, Any]:
        """Corpus, tokenizer, documents, how many were cut, decoding and what is measured."""
        assert self._tokenizer is not None
        return {
            "corpus": {
                "name": self.corpus.name,
                "split": self.split,
                "fingerprint": self.corpus.fingerprint(self.split),
            },
            "tokenizer": {
                "name": self._tokenizer.name_or_path,
                "fingerprint": tokenizer_fingerprint(self._tokenizer),
            },
            "documents": len(self.documents),
            "documents_left_out": self._left_out,
            "documents_cut": dict(Counter(part for document in self.documents for part in document.cut)),
            "longest_prompt": max(len(prompt.tokens) for prompt in self._prompts),
            "context_length": self.context_length,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seeds": list(self.seeds),
            "stop_at_eos": self.stop_at_eos,
            "max_documents": self.max_documents,
            "seed": self.seed,
            "rouge_is": "rouge-score, F measure in %, Porter's stemmer, rougeL of the whole text",
            "repeated_and_copied_are": f"shares of {NGRAM}-grams of words",
        }
