"""Names that a person may have meant."""

from collections.abc import Callable, Iterator
from importlib import import_module
from inspect import isabstract
from typing import Any, get_args, get_origin

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


def classes(hint: Any = None) -> set[str]:
    """Names of the classes that an option takes by name.

    Args:
        hint: the option's type; by default all options'.
    """
    kinds = KINDS if hint is None else tuple(_classes_in(hint))

    def below(kind: type) -> Iterator[type]:
        each: type
        for each in kind.__subclasses__():
            yield each
            yield from below(each)

    found = {each for kind in kinds for each in (kind, *below(kind))}
    return {each.__name__ for each in found if not each.__name__.startswith("_") and not isabstract(each)}


def _classes_in(hint: Any) -> Iterator[type]:
    arguments = get_args(hint)
    if isinstance(hint, type) and not arguments and hint.__module__ != "builtins":
        yield hint
    for inner in arguments[-1:] if get_origin(hint) is Callable else arguments:
        yield from _classes_in(inner)


def missing_methods(path: str) -> list[str]:
    """Names of the methods that a class has to have and lacks, by its import path; none where it cannot be imported."""
    module, _, name = path.rpartition(".")
    try:
        return sorted(getattr(import_module(module), name).__abstractmethods__)
    except (ImportError, AttributeError, ValueError):
        return []


def options_of(path: str) -> list[str]:
    """Options of a class, by its import path."""
    module, _, name = path.rpartition(".")
    parser = ArgumentParser(exit_on_error=False)
    try:
        return parser.add_class_arguments(getattr(import_module(module), name), fail_untyped=False)
    except Exception:  # it cannot be looked at, and the sentence is about something else
        return []
