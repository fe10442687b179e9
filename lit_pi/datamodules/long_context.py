"""The DataModule of any corpus to train on and any evaluations to measure."""

from collections.abc import Container, Mapping
from functools import cached_property, partial
from typing import Annotated, Any

import numpy as np
from lightning.pytorch import LightningDataModule
from lightning.pytorch.loops.progress import _ProcessedTracker
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.utils.data import ConcatDataset, DataLoader
from transformers import PreTrainedTokenizerFast

from lit_pi.batches import digested
from lit_pi.data.build import open_store
from lit_pi.data.corpora.corpus import Corpus
from lit_pi.data.documents.overlap import training_record
from lit_pi.data.generation import GenerationBatches
from lit_pi.data.model_tokenizer import (
    MOST_FOR_BYTES,
    check_belongs,
    choose_tokenizer,
    say_what_is_missing,
    tokenizer_record,
)
from lit_pi.data.order import EndlessOrder, Progress, RankShare, ResumableLoader
from lit_pi.data.packing import Packing
from lit_pi.data.prompts import Prompts
from lit_pi.data.ranks import DataRanks, data_ranks
from lit_pi.data.sequences import Sequences, collate
from lit_pi.data.store import TokenStore
from lit_pi.data.tokenizer import BYTES
from lit_pi.datamodules.probing import probing
from lit_pi.datamodules.step_schedule import is_last_step
from lit_pi.errors import UserError
from lit_pi.evaluations.evaluation import Evaluation, ScoringBatches, check_measurable
from lit_pi.files import check_name
from lit_pi.ranges import MOST_TOKENS, BatchSize, Range, Seed, in_range
from lit_pi.runs.signals import leave_to_the_parent

LENGTH_MULTIPLE = 8
"""Tensor cores and sequence sharding want training sequences of a multiple of this many tokens."""
OF_A_LENGTH = 64
"""Sequences of about one length that stay together when each holds one document."""


class LongContextData(LightningDataModule):
    """Training sequences of one corpus, and any number of evaluations.

    Args:
        train: the corpus to train on.
        evaluations: what `validate` and `test`, and `fit` every so often, measure; the names go into results.
        predict: the prompts that `predict` continues.
        tokenizer: `bytes`, a directory, `tokenizer.json` or GGUF file, or an id on the hub; by default the model's own:
            of its directory or file, or of the run that trained it, and `bytes` for a model that begins from scratch.
        context_length: tokens of a training sequence, a multiple of 8.
        packing: how documents fill sequences (see `Sequences`).
        batch_size: training sequences of one batch on each device.
        num_workers: processes that read batches beside each rank; 0 reads in the rank itself.
        seed: chooses the order of training sequences.
        evaluate_last_step: measure every evaluation after the last step of `fit` too, whatever its `every_n_steps`.

    Raises:
        UserError: `context_length` is not a multiple of 8, another count is too small, or there is nothing to train
            on or to evaluate.
    """

    @in_range
    def __init__(
        self,
        train: Corpus | None = None,
        evaluations: dict[str, Evaluation] | None = None,
        predict: Prompts | None = None,
        tokenizer: str | None = None,
        context_length: Annotated[int, Range(LENGTH_MULTIPLE, MOST_TOKENS, step=LENGTH_MULTIPLE)] = 2048,
        packing: Packing = "packed",
        batch_size: BatchSize = 1,
        num_workers: Annotated[int, Range(0, 1024)] = 0,
        seed: Seed = 0,
        evaluate_last_step: bool = False,
    ) -> None:
        super().__init__()
        for name in evaluations or {}:
            check_name(name)
        self.train = train
        self.evaluations = evaluations or {}
        self.predict = predict
        self.tokenizer_name = tokenizer
        self.context_length = context_length
        self.packing: Packing = packing
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.evaluate_last_step = evaluate_last_step
        self.sequences: dict[str, Sequences] | None = None
        self.trained_before: list[dict[str, Any]] | None = None  # what the checkpoint says that is loaded
        self._training_store: TokenStore | None = None

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer, loaded when first asked for: the one that is named, if it belongs to the model, or its own.

        Raises:
            UserError: there is none, or it does not belong to the model.
        """
        module = None if self.trainer is None else self.trainer.lightning_module
        tokenizer = choose_tokenizer(self.tokenizer_name, getattr(module, "own_tokenizer", None))
        say_what_is_missing(tokenizer)
        return tokenizer

    def check_vocabulary(self, vocab_size: int) -> None:
        """Check that a model has an embedding for each token.

        Raises:
            UserError: it has fewer than there are tokens.
        """
        if len(self.tokenizer) > vocab_size:
            raise UserError(
                f"the tokenizer ({self.tokenizer.name_or_path}) has {len(self.tokenizer)} tokens and the model "
                f"only {vocab_size}: name the model's own tokenizer in `data.tokenizer`, or raise its vocab_size"
            )
        if self.tokenizer_name is None and self.tokenizer.name_or_path == BYTES and vocab_size > MOST_FOR_BYTES:
            rank_zero_info(
                f"The model begins with {vocab_size:,} tokens, and by default text is read as {len(self.tokenizer)} of "
                "`bytes`: name another tokenizer in `data.tokenizer` to use them."
            )

    def check_trained_with(self, record: Mapping[str, Any] | None, checkpoint: str | None) -> None:
        """Check that the tokenizer has the vocabulary that a checkpoint was trained with, if it says.

        Args:
            record: what the checkpoint keeps of it.
            checkpoint: the checkpoint's path.

        Raises:
            UserError: it has another one.
        """
        if record is not None:
            check_belongs(self.tokenizer, {"model": checkpoint, "vocab_size": None, **record})

    @cached_property
    def tokenizer_record(self) -> dict[str, Any]:
        """Name and digests of the tokenizer, as checkpoints keep them."""
        return tokenizer_record(self.tokenizer)

    @property
    def training_records(self) -> list[dict[str, Any]]:
        """Records of the stores that the model has been trained on, in runs before and in this one."""
        if self.trained_before is None:
            module: Any = None if self.trainer is None else self.trainer.lightning_module
            self.trained_before = [] if module is None else module.source.training_records()
        own = [] if self._training_store is None else [training_record(self._training_store)]
        return [*self.trained_before, *(record for record in own if record not in self.trained_before)]

    def setup(self, stage: str) -> None:
        """Open the token stores, building those that are missing: one process builds, the others wait for it."""
        if stage == "predict":
            if self.predict is None:
                raise UserError("there is nothing to continue: name prompts in `data.predict`")
            self.predict.prepare(self.tokenizer)
            return
        for evaluation in self.evaluations.values():
            evaluation.prepare(self.tokenizer)
        if stage == "fit" and self.sequences is None:
            if self.train is None:
                raise UserError("there is nothing to train on: name a corpus in `data.train`")
            store = self._training_store = open_store(self.train, "train", self.tokenizer)
            self.sequences = self._sequences(store, self.train.weights)
            if not any(map(len, self.sequences.values())):
                raise UserError(f"the training documents of {self.train.name} hold no token to learn: add text")
            for source, sequences in self.sequences.items():
                rank_zero_info("Training data%s: %s", f", {source}" if source else "", self._describe(sequences))
            unweighed = store.manifest["sources"].keys() - self.sequences.keys() if self.train.weights else ()
            if unweighed:
                rank_zero_info("Training data left out for want of a weight: %s", ", ".join(sorted(unweighed)))

    def _sequences(self, store: TokenStore, weights: Mapping[str, float] | None) -> dict[str, Sequences]:
        """Sequences by source, or all of them where none is weighed."""
        if weights is None:
            return {"": Sequences(store, self.tokenizer, self.context_length, self.packing)}
        places = {source: place for place, source in enumerate(store.manifest["sources"])}
        found = {}
        for source, weight in weights.items():
            if weight > 0:
                if source not in places:
                    raise UserError(f"weights name the source {source!r}: the corpus has {', '.join(places)}")
                documents = np.flatnonzero(store.sources == places[source])
                found[source] = Sequences(store, self.tokenizer, self.context_length, self.packing, documents)
                if not len(found[source]):
                    raise UserError(f"the documents of source {source!r} hold no token to learn: give it no weight")
        return found

    def _describe(self, sequences: Sequences) -> str:
        count = sequences.accounting()
        padded = count.padded / max(count.sequences * self.context_length, 1)
        left_out = ", ".join(f"{number:,} {reason}" for reason, number in count.left_out.items() if number)
        cut = sequences.store.manifest["documents"]["cut"]
        limited = "".join(f"; {part} cut to its limit in {number:,}" for part, number in cut.items())
        return (
            f"{count.documents:,} documents in {count.sequences:,} sequences of {self.context_length:,} tokens "
            f"({self.packing}, {padded:.1%} padding); of {count.tokens:,} tokens {count.learnt:,} are learnt, "
            f"not learnt are {left_out or 'none'}{limited}"
        )

    def train_dataloader(self) -> ResumableLoader:
        """Training sequences in an order that a resumed run continues exactly."""
        trainer = self.trainer
        assert trainer is not None and self.sequences is not None and self.train is not None
        weights = self.train.weights
        batches: _ProcessedTracker = trainer.fit_loop.epoch_loop.batch_progress.total  # type: ignore[assignment]
        progress = Progress(lambda: batches.processed, self.batch_size * self._ranks.size)
        single = self.packing == "single"
        order = EndlessOrder(
            [len(sequences) for sequences in self.sequences.values()],
            self.seed,
            self._ranks.size,
            self._ranks.rank,
            self.batch_size,
            progress.consumed,
            weights=None if weights is None else [weights[source] for source in self.sequences],
            neighbours=OF_A_LENGTH if single else 1,
        )
        return ResumableLoader(
            ConcatDataset(self.sequences.values()),
            batch_size=self.batch_size,
            sampler=order,
            collate_fn=partial(collate, trim=single),
            progress=progress,
            **self._reading,
        )

    def consumed(self) -> int:
        """Training sequences that all ranks together have consumed."""
        loader = self.trainer.train_dataloader  # type: ignore[union-attr]
        return loader.progress.consumed() if isinstance(loader, ResumableLoader) else 0

    def documents_of(self, start: int, stop: int, ranks: Container[int] | None = None) -> list[str]:
        """Names of the documents of training sequences, each once.

        Args:
            start: how many sequences all ranks had consumed before.
            stop: how many after.
            ranks: ranks whose sequences are meant; None for all, which is said too where ranks share a sequence.
        """
        assert self.trainer is not None
        loader, size = self.trainer.train_dataloader, self._ranks.size
        assert isinstance(loader, ResumableLoader)
        meant = range(size) if ranks is None or size != self.trainer.world_size else ranks
        return loader.documents_of(place for place in range(start, stop) if (place - start) % size in meant)

    def val_dataloader(self) -> list[DataLoader]:
        """Windows of every evaluation, in the order of their names' first mention; empty when not due."""
        return self._evaluation_loaders()

    def test_dataloader(self) -> list[DataLoader]:
        """Windows of every evaluation."""
        if not self.evaluations:
            raise UserError("there is nothing to evaluate: name at least one evaluation in `data.evaluations`")
        return self._evaluation_loaders()

    def predict_dataloader(self) -> DataLoader:
        """The prompts."""
        assert self.predict is not None
        batches = self.predict.batches(self._ranks.size)
        share = RankShare(len(batches), self._ranks.size, self._ranks.rank, lambda: True)
        return DataLoader(batches, batch_size=None, sampler=share, collate_fn=digested, **self._reading)

    def _evaluation_loaders(self) -> list[DataLoader]:
        loaders = []
        for name, evaluation in self.evaluations.items():
            batches = self._batches(name, evaluation)
            share = RankShare(len(batches), self._ranks.size, self._ranks.rank, partial(self._due, evaluation))
            loaders.append(DataLoader(batches, batch_size=None, sampler=share, collate_fn=digested, **self._reading))
        return loaders

    def _batches(self, name: str, evaluation: Evaluation) -> ScoringBatches | GenerationBatches:
        if self.trainer is None:
            return evaluation.batches(name, self.tokenizer, self._ranks.size)
        with probing(self.trainer) as probe:
            evaluation.settle(name, self.tokenizer, probe)
            batches = evaluation.batches(name, self.tokenizer, self._ranks.size)
            check_measurable(name, evaluation, batches)
            evaluation.preview(name, batches, probe)
        return batches

    def _due(self, evaluation: Evaluation) -> bool:
        trainer = self.trainer
        assert trainer is not None
        every = evaluation.every_n_steps
        if every is None or trainer.state.fn != "fit" or trainer.global_step % every == 0:
            return True
        return self.evaluate_last_step and is_last_step(trainer)

    @property
    def _ranks(self) -> DataRanks:
        return data_ranks(self.trainer)

    @property
    def _reading(self) -> dict[str, Any]:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": on_gpu,
            "worker_init_fn": leave_to_the_parent,
        }
