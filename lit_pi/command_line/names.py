"""Names that a person may have meant."""

from collections.abc import Iterator
from importlib import import_module

from jsonargparse import ArgumentParser
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lit_pi.data.corpora import Corpus
from lit_pi.evaluations import Evaluation
from lit_pi.models import ModelSource
from lit_pi.positions import PositionStrategy, TrainPositions

KINDS: tuple[type, ...] = (
    PositionStrategy, TrainPositions, ModelSource, Corpus, Evaluation, Callback, Logger, Optimizer, LRScheduler
)  # fmt: skip
"""Classes of which options take a subclass by its name."""


def classes() -> set[str]:
    """Names of all classes that options take by name."""

    def below(kind: type) -> Iterator[type]:
        each: type
        for each in kind.__subclasses__():
            yield each
            yield from below(each)

    return {each.__name__ for kind in KINDS for each in below(kind) if not each.__name__.startswith("_")}


def options_of(path: str) -> list[str]:
    """Options of a class, by its import path."""
    module, _, name = path.rpartition(".")
    parser = ArgumentParser(exit_on_error=False)
    try:
        return parser.add_class_arguments(getattr(import_module(module), name), fail_untyped=False)
    except Exception:  # it cannot be looked at, and the sentence is about something else
        return []
