"""What to train on and what to evaluate."""

from functools import cached_property, partial
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.loops.progress import _ProcessedTracker
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from lit_pi.data.build import open_store
from lit_pi.data.corpora.corpus import Corpus
from lit_pi.data.evaluations.evaluation import Evaluation
from lit_pi.data.order import EndlessOrder, Progress, RankShare, ResumableLoader
from lit_pi.data.sequences import Packing, Sequences, collate
from lit_pi.data.tokenizer import load_tokenizer
from lit_pi.errors import UserError

LENGTH_MULTIPLE = 8
"""Tensor cores and sequence sharding want training sequences of a multiple of this many tokens."""


class LongContextData(LightningDataModule):
    """Training sequences of one corpus, and any number of evaluations.

    Args:
        train: the corpus to train on.
        evaluations: what `validate` and `test`, and `fit` every so often, measure; the names go into results.
        tokenizer: `bytes`, a directory or file in Hugging Face format, or an id on the hub.
        context_length: tokens of a training sequence, a multiple of 8.
        packing: how documents fill sequences (see `Sequences`).
        batch_size: training sequences of one batch on each device.
        num_workers: processes that read batches beside each rank; 0 reads in the rank itself.
        seed: chooses the order of training sequences.

    Raises:
        UserError: `context_length` is not a multiple of 8, or there is nothing to train on or to evaluate.
    """

    def __init__(
        self,
        train: Corpus | None = None,
        evaluations: dict[str, Evaluation] | None = None,
        tokenizer: str = "bytes",
        context_length: int = 2048,
        packing: Packing = "packed",
        batch_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if context_length < LENGTH_MULTIPLE or context_length % LENGTH_MULTIPLE:
            raise UserError(
                f"data.context_length is {context_length}: it must be a positive multiple of {LENGTH_MULTIPLE} tokens"
            )
        self.train = train
        self.evaluations = evaluations or {}
        self.tokenizer_name = tokenizer
        self.context_length = context_length
        self.packing: Packing = packing
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.sequences: Sequences | None = None

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer, loaded when first asked for."""
        return load_tokenizer(self.tokenizer_name)

    def setup(self, stage: str) -> None:
        """Open the token stores, building those that are missing: one process builds, the others wait for it."""
        for evaluation in self.evaluations.values():
            evaluation.prepare(self.tokenizer)
        if stage == "fit" and self.sequences is None:
            if self.train is None:
                raise UserError("there is nothing to train on: name a corpus in `data.train`")
            store = open_store(self.train, "train", self.tokenizer)
            self.sequences = Sequences(store, self.tokenizer, self.context_length, self.packing)
            if not len(self.sequences):
                raise UserError(f"the training documents of {self.train.name} hold no token to learn: add text")
            rank_zero_info("Training data: %s", self._accounting(self.sequences))

    def _accounting(self, sequences: Sequences) -> str:
        count = sequences.accounting()
        padded = count["positions_padded"] / (count["sequences"] * self.context_length)
        return (
            f"{count['documents']:,} documents in {count['sequences']:,} sequences of {self.context_length:,} tokens "
            f"({self.packing}): {count['positions_trained']:,} tokens to learn, {padded:.1%} padding, none left out"
        )

    def train_dataloader(self) -> ResumableLoader:
        """Training sequences in an order that a resumed run continues exactly."""
        trainer = self.trainer
        assert trainer is not None and self.sequences is not None
        batches: _ProcessedTracker = trainer.fit_loop.epoch_loop.batch_progress.total  # type: ignore[assignment]
        progress = Progress(lambda: batches.processed, self.batch_size * self._world_size)
        order = EndlessOrder(
            len(self.sequences), self.seed, self._world_size, self._rank, self.batch_size, progress.consumed
        )
        return ResumableLoader(
            self.sequences,
            batch_size=self.batch_size,
            sampler=order,
            collate_fn=collate,
            progress=progress,
            **self._reading,
        )

    def val_dataloader(self) -> list[DataLoader]:
        """Windows of every evaluation, in the order of their names' first mention; empty when not due."""
        return self._evaluation_loaders()

    def test_dataloader(self) -> list[DataLoader]:
        """Windows of every evaluation."""
        if not self.evaluations:
            raise UserError("there is nothing to evaluate: name at least one evaluation in `data.evaluations`")
        return self._evaluation_loaders()

    def _evaluation_loaders(self) -> list[DataLoader]:
        loaders = []
        for name, evaluation in self.evaluations.items():
            batches = evaluation.batches(name, self.tokenizer, self._world_size)
            share = RankShare(len(batches), self._world_size, self._rank, partial(self._due, evaluation))
            loaders.append(DataLoader(batches, batch_size=None, sampler=share, **self._reading))
        return loaders

    def _due(self, evaluation: Evaluation) -> bool:
        trainer = self.trainer
        assert trainer is not None
        every = evaluation.every_n_steps
        return every is None or trainer.state.fn != "fit" or trainer.global_step % every == 0

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer is not None else 1

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer is not None else 0

    @property
    def _reading(self) -> dict[str, Any]:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": on_gpu,
        }
