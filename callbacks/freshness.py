"""Callbacks that monitor an evaluation act when it has just been measured, and only then."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from lightning.pytorch import Callback, Trainer

HOOKS = ("on_validation_end", "on_train_epoch_end")
"""Where Lightning's and Optuna's callbacks read what they monitor."""


class Freshness:
    """Counts the measurements of evaluations, and tells callbacks that monitor them which are new.

    An evaluation with `every_n_steps` is not due at every validation. What it found earlier is no longer among
    `callback_metrics` then, and a callback that monitors it is not asked, so that patience, plateaus and best
    checkpoints count measurements and not validations.
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._count: Counter[str] = Counter()

    def guard(self, callbacks: Iterable[Callback], names: Iterable[str]) -> None:
        """Have the callbacks that monitor one of the named evaluations wait for its next measurement."""
        self._names = tuple(names)
        for callback in callbacks:
            if (name := self._monitored(getattr(callback, "monitor", None))) is not None:
                for hook in HOOKS:
                    asked = getattr(callback, hook)
                    if not isinstance(asked, WhenMeasured):
                        setattr(callback, hook, WhenMeasured(asked, self._count, name))

    def forget(self, trainer: Trainer) -> None:
        """Take away what earlier validations found."""
        for key in [key for key in trainer.callback_metrics if self._monitored(key) is not None]:
            del trainer.callback_metrics[key]

    def measured(self, names: Iterable[str]) -> None:
        """Note evaluations that were just measured."""
        self._count.update(names)

    def _monitored(self, key: str | None) -> str | None:
        return next((name for name in self._names if key is not None and key.startswith(f"{name}/")), None)


class WhenMeasured:
    """A hook that is passed on once for each measurement.

    Args:
        hook: hook of the callback that monitors.
        count: measurements by evaluation.
        name: the evaluation that is monitored.
    """

    def __init__(self, hook: Callable[..., Any], count: Counter[str], name: str) -> None:
        self.hook = hook
        self.count = count
        self.name = name
        self.seen = 0

    def __call__(self, *args: Any) -> None:
        """Pass on, if there is a new measurement."""
        if self.count[self.name] > self.seen:
            self.seen = self.count[self.name]
            self.hook(*args)
