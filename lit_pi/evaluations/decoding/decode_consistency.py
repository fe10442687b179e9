"""Whether decoding with a cache reads a text as a full pass does."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from lit_pi.batches import Decoding, GenerationBatch
from lit_pi.data.build import open_store
from lit_pi.data.corpora.corpus import Corpus, Split
from lit_pi.data.documents.overlap import Hashes
from lit_pi.data.generation import GenerationBatches, PromptSample
from lit_pi.data.store import TokenStore
from lit_pi.errors import UserError
from lit_pi.evaluations.decoding.differences import KIND, DecodeDifferenceSums, overall, tolerance_of
from lit_pi.evaluations.decoding.tables import decode_tables
from lit_pi.evaluations.evaluation import Evaluation, Found, Results
from lit_pi.evaluations.selection import at_most
from lit_pi.evaluations.tables import Table
from lit_pi.ranges import BatchSize, Count, NotNegative, Seed, Tokens, in_range


class DecodeConsistency(Evaluation):
    """Scores the last tokens of a window in one pass, and one by one with the KV cache: both are to be equal.

    They differ where a cache holds keys with other angles than a full pass gives them, as for strategies whose angles
    depend on the length, or reads padding. The context length holds from the first step on, as in generation.

    Args:
        corpus: where the documents come from; only those that fill the window are read.
        split: which of them.
        context_length: tokens of `<bos>` (where the tokenizer has it) and document, its start.
        steps: how many tokens at the window's end are read one by one.
        tolerance: nats by which a token's two scores may differ; by the dtype of the computation by default, 1e-6
            in float64, 1e-3 in float32 and 0.25 in the dtypes of 16 bits.
        batch_size: documents of one forward.
        max_documents: how many documents to read, a random choice; None for all.
        seed: chooses the documents.
        every_n_steps: during `fit`, measure at steps that are multiples of this; None for every validation.

    Raises:
        UserError: an option is below its least value, or the steps leave no prompt.
    """

    kind = KIND

    @in_range
    def __init__(
        self,
        corpus: Corpus,
        split: Split = "test",
        context_length: Tokens = 2048,
        steps: Count = 64,
        tolerance: NotNegative | None = None,
        batch_size: BatchSize = 1,
        max_documents: Count | None = 8,
        seed: Seed = 0,
        every_n_steps: Count | None = None,
    ) -> None:
        super().__init__(every_n_steps)
        if steps >= context_length:
            raise UserError(
                f"the DecodeConsistency evaluation reads {steps} steps of context_length {context_length}: at least "
                "one token must stand before them"
            )
        self.corpus = corpus
        self.split: Split = split
        self.context_length = context_length
        self.steps = steps
        self.tolerance = tolerance
        self.batch_size = batch_size
        self.max_documents = max_documents
        self.seed = seed
        self.samples: list[PromptSample] = []
        self.document_ids: list[str] = []
        self._store: TokenStore | None = None
        self._documents = np.empty(0, np.int64)

    def prepare(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Open the token store, choose documents and cut them to the window.

        Raises:
            UserError: no document fills the window.
        """
        if self.samples:
            return
        store = self._store = open_store(self.corpus, self.split, tokenizer)
        bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        own = self.context_length - len(bos)
        documents = np.flatnonzero(store.lengths >= own)
        if not len(documents):
            raise UserError(
                f"no document of {self.corpus.name}, {self.split}, fills a window of {self.context_length} tokens: "
                f"the longest has {store.lengths.max()}; lower context_length or bring longer documents"
            )
        self._documents = at_most(documents, self.max_documents, self.seed)
        for index in self._documents.tolist():
            tokens = np.concatenate((np.array(bos, np.int64), store.document(index)[:own].astype(np.int64)))
            prompt, target = np.split(tokens, [-self.steps])
            self.samples.append(PromptSample(prompt, self.context_length, target=target))
            self.document_ids.append(store.document_id(index))

    def batches(self, name: str, tokenizer: PreTrainedTokenizerFast, world_size: int) -> GenerationBatches:
        """All windows."""
        return GenerationBatches(name, self.samples, Decoding(self.steps), self.batch_size, world_size)

    def metric(self) -> DecodeDifferenceSums:
        """Return sums for each document."""
        return DecodeDifferenceSums(len(self.samples))

    def add(self, metric: DecodeDifferenceSums, outputs: dict[str, Any], batch: GenerationBatch) -> None:
        """Add a batch of windows."""
        metric.update(batch.documents, outputs["token_nll"], outputs["decoded_nll"])

    def results(self, metric: DecodeDifferenceSums, model: Mapping[str, Any]) -> Results:
        """Return the largest and the mean absolute difference in nats, and the verdict."""
        tolerance = tolerance_of(model["compute_dtype"]) if self.tolerance is None else self.tolerance
        documents = metric.compute()
        found = overall(documents)
        scalars = {"decode/max": found.max, "decode/mean": found.mean}
        record = {
            "consistent": found.max is not None and found.max <= tolerance,
            "tolerance": tolerance,
            "tokens": found.tokens,
            "max_difference": found.max,
            "mean_difference": found.mean,
            "documents": [{"id": self.document_ids[entry.document], **entry._asdict()} for entry in documents],
        }
        return Results(record, {key: value for key, value in scalars.items() if value is not None})

    @classmethod
    def tables(cls, found: Found) -> list[Table]:
        """Return the differences and the verdict."""
        return decode_tables(found)

    def document_hashes(self) -> Hashes:
        """Return those of the documents that were chosen."""
        assert self._store is not None
        return self._store.hashes[self._documents]

    def describe(self) -> dict[str, Any]:
        """Corpus, tokenizer, documents and windows."""
        assert self._store is not None
        return {
            "corpus": self._store.manifest["corpus"],
            "tokenizer": self._store.manifest["tokenizer"],
            "context_length": self.context_length,
            "steps": self.steps,
            "documents": len(self.samples),
            "document_ids": self.document_ids,
            "documents_left_out": len(self._store) - len(self.samples),
            "max_documents": self.max_documents,
            "seed": self.seed,
        }
