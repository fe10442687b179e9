"""Perplexity of documents against context length."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerFast

from lit_pi.batches import ScoringBatch
from lit_pi.data.build import open_store
from lit_pi.data.corpora.corpus import Corpus, Split
from lit_pi.data.documents.overlap import Hashes
from lit_pi.data.generation import GenerationBatches
from lit_pi.data.store import TokenStore
from lit_pi.data.token_bytes import TokenBytes
from lit_pi.errors import UserError
from lit_pi.evaluations.evaluation import Evaluation, Found, Probe, Results, ScoringBatches
from lit_pi.evaluations.figures import Picture
from lit_pi.evaluations.perplexity.definitions import OF_BYTES, Floats
from lit_pi.evaluations.perplexity.figures import perplexity_figures
from lit_pi.evaluations.perplexity.first_look import preview, settle_windows
from lit_pi.evaluations.perplexity.measures import measure, measure_windows
from lit_pi.evaluations.perplexity.paired import KIND
from lit_pi.evaluations.perplexity.protocols import SLIDING, ProtocolName, ProtocolWindows, named
from lit_pi.evaluations.perplexity.sampled.pilot import PILOT_WINDOWS
from lit_pi.evaluations.perplexity.sampled.sampling import PER_BLOCK, WindowSample
from lit_pi.evaluations.perplexity.score_tables import document_columns, write_tokens
from lit_pi.evaluations.perplexity.tables import perplexity_differences, perplexity_tables
from lit_pi.evaluations.perplexity.token_scores import TokenScores, series_of
from lit_pi.evaluations.perplexity.window_batches import WindowBatches
from lit_pi.evaluations.perplexity.window_scores import WindowScores
from lit_pi.evaluations.perplexity.windows import Bos, Shape, Window, WindowPlan, plan_batches
from lit_pi.evaluations.selection import at_most
from lit_pi.evaluations.tables import Table
from lit_pi.ranges import BatchSize, Count, Range, Seed, Tokens, in_range


class KnownBytes(NamedTuple):
    """UTF-8 bytes of the tokens of each measured document, or None and the reason why they are not known."""

    token_bytes: list[Floats] | None
    reason: str | None


class Perplexity(Evaluation):
    """Sliding-window perplexity, every token scored once per context length (see `WindowPlan`), or a protocol's.

    Args:
        corpus: where the documents come from.
        split: which of them.
        context_lengths: positions of a window (tokens); all are measured in one run.
        stride: tokens from one window to the next; by default the protocol's, else 256 (Chen et al. 2023, section
            3.2).
        bos: whether `<bos>` stands before every window, each document's first one, or none; by default what the
            protocol has, else every one.
        disjoint: score windows that do not overlap too, as a definition of its own (see `WindowPlan.disjoint`). They
            are scored where windows are drawn too, so that these have only to say how much they differ from them.
        batch_size: windows of one forward.
        max_documents: how many documents to measure, a random choice; None for all.
        max_tokens: tokens of a document that are measured, from its start; None for all.
        min_tokens: documents with fewer tokens are left out before the choice.
        num_windows: how many windows to run beside each document's first one, drawn at random (an even number); None
            for all. What is drawn depends on nothing but the documents, `stride` and `seed`, so strategies compare.
        precision: draw as many windows as make the 95 % interval of what all windows would give so narrow, as half its
            width over the perplexity, at every context length (0.005 for half a per cent); a pilot of a few windows
            finds the number, which the result records, and whether disjoint windows of the longest context length
            will do. A pilot that a few blocks of windows carry draws more, if need be all windows. Runs that are
            compared need the same number: give it to both.
        seed: chooses documents and windows.
        protocol: measure as numbers of the literature were: windows, `<bos>`, joining of documents and average at
            once (see `PROTOCOLS`), `pi`, `yarn`, `yarn_2023`, `longlora`, `lm_eval`, `hf_2023`, `hf_now` or
            `llama_cpp`. The perplexity is the protocol's; where it joins documents, `max_tokens` cuts what they make.
        every_n_steps: during `fit`, measure at steps that are multiples of this; None for every validation.

    Raises:
        UserError: the stride leaves tokens unscored, a count is below its least value, or `precision` is out of range
            or stands beside `num_windows`, or an option contradicts the protocol.
    """

    kind = KIND
    folder = "scores"

    @classmethod
    def objective(cls, record: Mapping[str, Any]) -> float:
        """The perplexity at the longest context length."""
        return float(max(record["curve"], key=lambda point: point["context_length"])["perplexity"])

    @in_range
    def __init__(
        self,
        corpus: Corpus,
        split: Split = "test",
        context_lengths: Sequence[Tokens] = (2048,),
        stride: Tokens | None = None,
        bos: Bos | None = None,
        disjoint: bool = False,
        batch_size: BatchSize = 1,
        max_documents: Count | None = None,
        max_tokens: Count | None = None,
        min_tokens: Count = 1,
        num_windows: Annotated[int, Range(PER_BLOCK, step=PER_BLOCK)] | None = None,
        precision: Annotated[float, Range(0, 1, above=True, below=True)] | None = None,
        seed: Seed = 0,
        protocol: ProtocolName | None = None,
        every_n_steps: Count | None = None,
    ) -> None:
        super().__init__(every_n_steps)
        if precision is not None and num_windows is not None:
            raise UserError("precision stands beside num_windows: give one or the other")
        self.corpus = corpus
        self.split: Split = split
        self.protocol_name: ProtocolName | None = protocol
        self.protocol = SLIDING
        if protocol is not None:
            drawn = {"num_windows": num_windows, "precision": precision, "disjoint": disjoint or None}
            self.protocol = named(protocol, {"stride": stride, "bos": bos, **drawn})
        self.stride = self.protocol.stride if stride is None else stride
        self.plan = self.protocol.plan(context_lengths, self.stride, bos or self.protocol.bos)
        self.disjoint = disjoint
        self.batch_size = batch_size
        self.max_documents = max_documents
        self.max_tokens = max_tokens
        self.min_tokens = min_tokens
        self.num_windows = num_windows
        self.precision = precision
        self.seed = seed
        self.store: TokenStore | None = None
        self._token_bytes: TokenBytes | None = None
        self.bos_token_id: int | None = None
        self.chosen: list[int] = []
        self.left_out = 0
        self.hashes: Hashes | None = None
        self.documents = np.empty(0, np.int64)
        self.lengths = np.empty(0, np.int64)
        self.sample: WindowSample | None = None
        self.control: Sequence[WindowPlan] = self.plan.disjoint()

    @property
    def plans(self) -> list[WindowPlan]:
        """The sliding windows, and disjoint ones where they are asked for or windows are drawn."""
        return [self.plan, *(self.control if self.disjoint or self.sample is not None else ())]

    @property
    def controls(self) -> list[list[WindowPlan]]:
        """Disjoint windows to choose from where windows are drawn: all where they are wanted anyway."""
        every = self.plan.disjoint()
        return [every] if self.disjoint else [every[-1:], every]

    def prepare(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Open the token store and choose the documents.

        Raises:
            UserError: no document is long enough, or `<bos>` is wanted and the tokenizer has none.
        """
        if self.store is not None:
            return
        self._settle_bos(tokenizer)
        store = open_store(self.corpus, self.split, tokenizer)
        long_enough = np.flatnonzero(store.lengths >= self.min_tokens)
        if not len(long_enough):
            raise UserError(
                f"no document of {self.corpus.name}, {self.split}, has the {self.min_tokens} tokens of min_tokens: "
                f"the longest has {store.lengths.max()}"
            )
        self.documents = at_most(long_enough, self.max_documents, self.seed)
        self.chosen, self.hashes = self.documents.tolist(), store.hashes[self.documents]
        self.left_out = len(store) - len(self.documents)
        if self.protocol.join is not None:
            store = self.protocol.join(store, self.documents, tokenizer)
            self.documents = np.zeros(1, np.int64)
        self.store = store
        self._token_bytes = TokenBytes(self.store, tokenizer)
        lengths, longest_window = self._measured(self.store), self.plan.context_lengths[-1]
        needed = longest_window - (self.plan.bos != "none")
        if lengths.max() < needed:
            limit = "" if self.max_tokens is None else f" (max_tokens is {self.max_tokens})"
            raise UserError(
                f"no document of {self.corpus.name}, {self.split}, fills a window of {longest_window} tokens: the "
                f"longest has {lengths.max()}{limit}; lower context_lengths or bring longer documents"
            )
        self.lengths = lengths[self.documents]
        if isinstance(self.plan, ProtocolWindows) and (without := self.plan.without(self.lengths.tolist())):
            raise UserError(
                f"protocol {self.protocol_name} has no window of {without[0]} tokens in a text of {lengths.max()}: "
                "bring more text or lower context_lengths"
            )
        if self.num_windows is not None:
            self.draw(self.num_windows)

    def _settle_bos(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.bos_token_id = tokenizer.bos_token_id
        if self.bos_token_id is None and self.protocol.eos_for_bos:
            self.bos_token_id = tokenizer.eos_token_id
        if self.plan.bos == "none" or self.bos_token_id is not None:
            return
        if self.protocol_name is None or self.protocol.eos_for_bos:
            raise UserError(f"the tokenizer {tokenizer.name_or_path} has no <bos>: set `bos: none` in the evaluation")
        self.plan = self.protocol.plan(self.plan.context_lengths, self.stride, "none")
        self.control = self.plan.disjoint()

    def draw(self, num_windows: int) -> None:
        """Run so many windows beside each document's first one, or all where there are no more."""
        sample = self._sample(num_windows)
        self.sample = None if sample.complete else sample

    def pilot(self, num_windows: int = PILOT_WINDOWS) -> WindowSample:
        """A few windows; complete where drawing them saves nothing."""
        pilot = self._sample(num_windows)
        return pilot if pilot.units > 2 * num_windows else self._sample(pilot.units)

    def pilot_batches(
        self, name: str, tokenizer: PreTrainedTokenizerFast, world_size: int, pilot: WindowSample
    ) -> WindowBatches:
        """The windows of a pilot, without first ones, and the disjoint ones that hold what they score."""
        lengths = self.lengths.tolist()
        groups = self.plan.group(lengths)
        later = {shape: [window for window in windows if window.begin > 0] for shape, windows in groups.items()}
        drawn = {shape: self._drawn(windows, pilot) for shape, windows in later.items() if windows}
        return self._batches(name, drawn | self.plan.disjoint_holding(drawn, lengths), tokenizer, world_size)

    def _sample(self, num_windows: int) -> WindowSample:
        shortest = self.plan.context_lengths[0]
        counts = np.array([self.plan.count(shortest, length) for length in self.lengths.tolist()])
        return WindowSample(counts, num_windows, self.seed)

    def _measured(self, store: TokenStore) -> np.ndarray:
        return store.lengths if self.max_tokens is None else np.minimum(store.lengths, self.max_tokens)

    def batches(self, name: str, tokenizer: PreTrainedTokenizerFast, world_size: int) -> WindowBatches:
        """All windows of the documents, or those that were drawn."""
        groups = self.plan.group(self.lengths.tolist())
        if self.sample is not None:
            groups = {shape: self._drawn(windows, self.sample) for shape, windows in groups.items()}
        for plan in self.plans[1:]:
            groups |= plan.group(self.lengths.tolist())
        return self._batches(name, groups, tokenizer, world_size)

    def _batches(
        self, name: str, groups: dict[Shape, list[Window]], tokenizer: PreTrainedTokenizerFast, world_size: int
    ) -> WindowBatches:
        assert self.store is not None
        planned = plan_batches(groups, self.batch_size, world_size)
        return WindowBatches(name, self.store, self.documents, self.lengths, self.bos_token_id, planned)

    def _drawn(self, windows: list[Window], sample: WindowSample) -> list[Window]:
        document, begin = np.array(windows).T
        included = sample.includes(document, begin // self.plan.stride)
        return [windows[index] for index in np.flatnonzero(included)]

    def settle(self, name: str, tokenizer: PreTrainedTokenizerFast, probe: Probe) -> None:
        """Run a pilot where a precision is asked for, and let it say how many windows are run."""
        if self.precision is not None:
            settle_windows(name, self, tokenizer, probe)

    def preview(self, name: str, batches: ScoringBatches | GenerationBatches, probe: Probe) -> None:
        """Say how many windows and tokens there are to read, and how long that will take."""
        assert isinstance(batches, WindowBatches)
        preview(name, batches, probe)

    def metric(self) -> TokenScores | WindowScores:
        """Return an empty store of losses."""
        if self.protocol.windows is not None:
            return WindowScores()
        return TokenScores(series_of(self.plans), self.lengths.tolist())

    def add(self, metric: TokenScores | WindowScores, outputs: dict[str, Any], batch: ScoringBatch) -> None:
        """Add a batch of windows."""
        metric.update(batch.spans, outputs["token_nll"], batch.targets, batch.scored, batch.documents, batch.begins)

    def results(self, metric: TokenScores | WindowScores, model: Mapping[str, Any]) -> Results:
        """Return the curve of every definition of perplexity, with 95 % intervals over documents."""
        assert self.store is not None
        known, files, definition = self.token_bytes(), {}, self.protocol.definition
        if isinstance(metric, WindowScores):
            sizes = None
            # A document's bytes are those of what its windows score only where they score each token once.
            if definition in OF_BYTES and known.token_bytes is not None:
                sizes = [float(each.sum()) for each in known.token_bytes]
            windows = {length: losses.sums(sizes) for length, losses in metric.compute().items()}
            found = measure_windows(windows, len(self.documents), definition)
        else:
            losses = metric.compute()
            found = measure(losses, self.plans, self.sample, known.token_bytes, definition)
            files = {"tokens": partial(write_tokens, losses=losses)}
        ids = [self.store.document_id(index) for index in self.documents.tolist()]
        return Results(
            found.record() | {"bits_per_byte_left_out": known.reason},
            found.scalars(),
            document_columns(ids, found.totals),
            files,
        )

    @classmethod
    def tables(cls, found: Found) -> list[Table]:
        """Return the curves, and every definition of perplexity."""
        return perplexity_tables(found)

    @classmethod
    def figures(cls, found: Found) -> dict[str, Picture]:
        """Return perplexity against context length, and the loss by position in the document."""
        return perplexity_figures(found)

    @classmethod
    def differences(cls, found: Found) -> list[Table]:
        """Return how much more or less than the first one runs lose on the same tokens."""
        return perplexity_differences(found)

    def token_bytes(self) -> KnownBytes:
        """UTF-8 bytes of the documents' tokens.

        Where the vocabulary does not say them, a document that is scored whole has its bytes spread over its tokens.
        """
        assert self.store is not None and self._token_bytes is not None
        table, found, unknown = self._token_bytes, [], 0
        for document, length in zip(self.documents.tolist(), self.lengths.tolist(), strict=True):
            sizes = table.of(document)
            whole = length == self.store.lengths[document] and self.plan.bos != "none"
            if sizes is not None:
                found.append(sizes[:length].astype(np.float64))
            elif whole:
                found.append(np.full(length, self.store.document_bytes[document] / length))
            else:
                unknown += 1
        if unknown:
            return KnownBytes(
                None, f"the tokens of {unknown} documents do not say their bytes, and not all of them are scored"
            )
        return KnownBytes(found, None)

    def describe(self) -> dict[str, Any]:
        """Corpus, tokenizer, documents and windows."""
        assert self.store is not None
        sample = self.sample
        return {
            "corpus": self.store.manifest["corpus"],
            "tokenizer": self.store.manifest["tokenizer"],
            "context_lengths": list(self.plan.context_lengths),
            "reproduces": None if self.protocol_name is None else {
                "name": self.protocol_name, "definition": self.protocol.definition, "source": self.protocol.source,
            },
            "stride": self.stride,
            "bos": self.plan.bos,
            "disjoint": [plan.context_lengths[0] for plan in self.plans[1:]],
            "sampling": None if sample is None else {
                "num_windows": sample.num_windows, "of": sample.units, "seed": self.seed,
                "estimate": "differences from disjoint windows",
            },
            "sampling_precision": self.precision,
            "windows_fingerprint": self._fingerprint(),
            "documents": len(self.chosen),
            "document_ids": [self.store.document_id(index) for index in self.documents.tolist()],
            "documents_left_out": self.left_out,
            "max_documents": self.max_documents,
            "max_tokens": self.max_tokens,
            "min_tokens": self.min_tokens,
            "seed": self.seed,
        }  # fmt: skip

    def document_hashes(self) -> Hashes | None:
        """Return those of the documents that were chosen."""
        return self.hashes

    def _fingerprint(self) -> str:
        """Digest the windows from which a sample may have been drawn."""
        assert self.store is not None
        origin = [self.store.manifest[key]["fingerprint"] for key in ("corpus", "tokenizer")]
        plan = [self.plan.context_lengths, self.stride, self.plan.bos]
        protocol = [] if self.protocol_name is None else [self.protocol_name]
        what = [*origin, *protocol, plan, self.chosen, self.lengths.tolist()]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
