"""What an evaluation gives to the loops: batches to score, and the protocol they follow."""

from abc import ABC, abstractmethod
from typing import Any

from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from lit_pi.batches import ScoringBatch
from lit_pi.data.generation import GenerationBatches
from lit_pi.errors import check_at_least


class ScoringBatches(Dataset[ScoringBatch], ABC):
    """Batches in an order in which every `world_size` consecutive ones have the same shapes."""

    @abstractmethod
    def __len__(self) -> int:
        """Batches of all ranks, a multiple of the world size."""

    @abstractmethod
    def __getitem__(self, index: int) -> ScoringBatch:
        """One batch."""


class Evaluation(ABC):
    """Something to measure on documents.

    Args:
        every_n_steps: during `fit`, measure at validations whose step is a multiple of this; None for all.

    Raises:
        UserError: an option is below its least value.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        check_at_least(f"the {type(self).__name__} evaluation", 1, every_n_steps=every_n_steps)
        self.every_n_steps = every_n_steps

    @abstractmethod
    def prepare(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Open the documents.

        Raises:
            UserError: there are none that can be measured.
        """

    @abstractmethod
    def batches(
        self, name: str, tokenizer: PreTrainedTokenizerFast, world_size: int
    ) -> ScoringBatches | GenerationBatches:
        """What is to be scored or continued, under the evaluation's name."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The protocol as plain JSON: a result is of use only beside it."""
