"""The base class of all evaluations, and what all of them share."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch.utils.data import Dataset
from torchmetrics import Metric
from transformers import PreTrainedTokenizerFast

from lit_pi.batches import GenerationBatch, ScoringBatch
from lit_pi.data.documents.overlap import Hashes
from lit_pi.data.generation import GenerationBatches
from lit_pi.data.ranks import DataRanks
from lit_pi.errors import UserError
from lit_pi.evaluations.figures import Picture
from lit_pi.evaluations.pairing import paired_items
from lit_pi.evaluations.records import Records
from lit_pi.evaluations.tables import Table
from lit_pi.ranges import Count, in_range

Found = Mapping[str, Records]
"""The records of every evaluation of one class, by evaluation and run."""


class ScoringBatches(Dataset[ScoringBatch], ABC):
    """Batches in an order in which every `world_size` consecutive ones have the same shapes."""

    @abstractmethod
    def __len__(self) -> int:
        """Batches of all ranks, a multiple of the world size."""

    @abstractmethod
    def __getitem__(self, index: int) -> ScoringBatch:
        """One batch."""


class Probe(NamedTuple):
    """The run's own way to score, lent to an evaluation before it begins.

    Attributes:
        score: scores a batch as the evaluation will be; returns `token_nll` `[batch, span]` of every span, in nats.
            Every rank has to call it as many times.
        ranks: the ranks that share the data.
        device: where scores are.
    """

    score: Callable[[ScoringBatch], Sequence[torch.Tensor]]
    ranks: DataRanks
    device: torch.device


class Results(NamedTuple):
    """Everything that an evaluation came to.

    Attributes:
        record: goes into `results.json`, plain JSON; tables and figures are drawn from it alone.
        scalars: go to the loggers and to callbacks that monitor, as `NAME/KEY`.
        items: a row for each thing that was measured (document, prompt, question), by column; written to Parquet. With
            a column `id`, the columns of numbers or truth values named in `Evaluation.paired` are compared between
            runs.
        files: writers of other Parquet files beside that one, by the end of their names; not called during `fit`.
    """

    record: dict[str, Any]
    scalars: Mapping[str, float]
    items: Mapping[str, Sequence[Any]] | None = None
    files: Mapping[str, Callable[[Path], None]] = {}


class Evaluation(ABC):
    """Something to measure on documents: what to score, how scores add up, what they come to, how two runs compare.

    A class outside the project that implements the abstract methods is measured, published, reported and compared like
    those inside it, once a YAML names it by its import path.

    Args:
        every_n_steps: during `fit`, measure at steps that are multiples of this; None for every validation.

    Attributes:
        kind: the kind of its records in `results.json`; by default the name of the class.
        folder: the folder of the run directory that holds its items in Parquet.
        paired: columns of `Results.items` that are compared between runs item by item, with what they are called.

    Raises:
        UserError: an option is below its least value.
    """

    kind: ClassVar[str]
    folder: ClassVar[str] = "items"
    paired: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Name the kind of records after the class where it does not say one."""
        super().__init_subclass__(**kwargs)
        if "kind" not in vars(cls):
            cls.kind = cls.__name__

    @in_range
    def __init__(self, every_n_steps: Count | None = None) -> None:
        self.every_n_steps = every_n_steps

    @classmethod
    def objective(cls, record: Mapping[str, Any]) -> float | None:
        """The number of a record that is smaller for the better of two models; None where there is no such number."""
        return None

    @abstractmethod
    def prepare(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Open the documents.

        Raises:
            UserError: there are none that can be measured.
        """

    def settle(self, name: str, tokenizer: PreTrainedTokenizerFast, probe: Probe) -> None:  # noqa: B027
        """Try out what has to be known before batches are planned; nothing by default.

        Args:
            name: the evaluation's name in this run.
            tokenizer: the run's tokenizer.
            probe: scores batches as the evaluation will.
        """

    @abstractmethod
    def batches(
        self, name: str, tokenizer: PreTrainedTokenizerFast, world_size: int
    ) -> ScoringBatches | GenerationBatches:
        """Plan what is to be scored or continued, under the evaluation's name."""

    def preview(  # noqa: B027
        self, name: str, batches: ScoringBatches | GenerationBatches, probe: Probe
    ) -> None:
        """Say what the evaluation will cost; nothing by default.

        Args:
            name: the evaluation's name in this run.
            batches: what will be scored.
            probe: scores batches as the evaluation will.
        """

    @abstractmethod
    def metric(self) -> Metric:
        """Return the sums, at zero; their states say how ranks add up."""

    @abstractmethod
    def add(self, metric: Any, outputs: dict[str, Any], batch: Any) -> None:
        """Add a batch to the sums.

        Args:
            metric: what `metric` returned.
            outputs: what the step made of the batch: `token_nll` (and `token_rank`) of each span where tokens are
                scored, the fields of `Generated` or `BothWays` where prompts are continued.
            batch: a `ScoringBatch` or a `GenerationBatch`.
        """

    @abstractmethod
    def results(self, metric: Any, model: Mapping[str, Any]) -> Results:
        """Say what the sums come to.

        Args:
            metric: the sums of all ranks.
            model: what is known of the model that was measured (see `LitLlama.describe`).
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the protocol as plain JSON: a result is of use only beside it."""

    def document_hashes(self) -> Hashes | None:
        """Return the hashes of the documents that are measured, by which those that the model was trained on are known.

        None where there are no documents, as by default.
        """
        return None

    @classmethod
    @abstractmethod
    def tables(cls, found: Found) -> list[Table]:
        """Return tables of what one run or several found; the terminal, Markdown, LaTeX and TensorBoard show them.

        Args:
            found: by evaluation, the record of each run that has it.
        """

    @classmethod
    def figures(cls, found: Found) -> dict[str, Picture]:
        """Return pictures of what one run or several found, each named `NAME/WHAT`; none by default.

        Args:
            found: by evaluation, the record of each run that has it.
        """
        return {}

    @classmethod
    def differences(cls, found: Found) -> list[Table]:
        """Return tables of how runs differ from the first one; by default, of the columns named in `paired`.

        Args:
            found: by evaluation, the record of each run that has it.
        """
        return [table for name, records in found.items() for table in paired_items(name, records, cls.paired)]


def check_measurable(name: str, evaluation: Evaluation, batches: Any) -> None:
    """Refuse an evaluation that could not be measured, before its first batch.

    Raises:
        UserError: its batches or its metric are not what the loops can drive.
    """
    who = f"the evaluation {name} ({type(evaluation).__name__})"
    if not isinstance(batches, ScoringBatches | GenerationBatches):
        raise UserError(
            f"{who} cannot be measured: its batches are {type(batches).__name__}, not ScoringBatches or "
            "GenerationBatches"
        )
    if not isinstance(metric := evaluation.metric(), Metric):
        raise UserError(f"{who} cannot be measured: its metric is {type(metric).__name__}, not a torchmetrics.Metric")
    if len(batches):
        first: ScoringBatch | GenerationBatch = batches[0]
        if first.evaluation != name:
            raise UserError(f"{who} cannot be measured: its batches bear the name {first.evaluation!r}")


def import_path(evaluation: type[Evaluation]) -> str:
    """Return the path by which a YAML names an evaluation's class."""
    return f"{evaluation.__module__}.{evaluation.__qualname__}"


def class_of(record: Mapping[str, Any]) -> type[Evaluation]:
    """Import the class of evaluation that gave a record.

    Raises:
        UserError: it cannot be imported here, or is no evaluation.
    """
    path = str(record.get("class_path", ""))
    module, _, name = path.rpartition(".")
    try:
        if module.split(".")[0] in sys.stdlib_module_names:  # some do things when they are imported
            raise ImportError("it is Python's own")
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"the results of {record['evaluation']} are of the class {path}, which cannot be imported ({error}): put "
            "the folder of its file on PYTHONPATH"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Evaluation)):
        raise UserError(f"the results of {record['evaluation']} are of {path}, which is no evaluation")
    return found
