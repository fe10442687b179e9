"""When `fit` validates: at optimizer steps, whatever micro-batches and epochs are."""

import sys
from collections.abc import Iterable

from lightning.pytorch import Trainer

from lit_pi.errors import UserError
from lit_pi.evaluations import Evaluation

NEVER = sys.maxsize


class StepSchedule:
    """Makes Lightning validate at the steps that evaluations ask for, and never amid a step.

    Lightning counts micro-batches, and most often from the start of an epoch. Where its `val_check_interval` falls amid
    a step, the validation comes after that step.

    Args:
        evaluations: all that may be measured.
        last_step: validate after the last step too.

    Raises:
        UserError: `val_check_interval` is a time, or epochs are left out, and an evaluation asks for steps.
    """

    def __init__(self, trainer: Trainer, evaluations: Iterable[Evaluation], last_step: bool) -> None:
        self._every = sorted({each.every_n_steps for each in evaluations if each.every_n_steps is not None})
        self._last_step = last_step
        self._own = trainer.val_check_batch
        self._batches = 0
        self._step = trainer.global_step
        self._owed = False
        asked = f"an evaluation is measured every {self._every[0]} steps" if self._every else "the last step is due"
        if (self._every or last_step) and self._own is None:
            raise UserError(f"trainer.val_check_interval is a time, and {asked}: leave it out")
        if (self._every or last_step) and trainer.check_val_every_n_epoch not in (None, 1):
            raise UserError(
                f"trainer.check_val_every_n_epoch is {trainer.check_val_every_n_epoch}, and {asked}: leave it out"
            )

    def after_batch(self, trainer: Trainer) -> None:
        """Let Lightning, which decides next, validate or not."""
        if self._own is None:
            return
        epochs = trainer.check_val_every_n_epoch is not None
        loop = trainer.fit_loop.epoch_loop
        batches = (loop.batch_idx if epochs else loop.total_batch_idx) + 1
        self._owed |= trainer.is_last_batch if self._own == float("inf") else batches % self._own == 0
        stepped = trainer.global_step != self._step
        self._step = trainer.global_step
        due = stepped and (
            self._owed
            or any(self._step % every == 0 for every in self._every)
            or (self._last_step and is_last_step(trainer))
        )
        self._owed &= not due
        trainer.val_check_batch = 1 if due else NEVER

    @property
    def begins_amid(self) -> bool:
        """Whether a run that is continued begins at a step after which one of the evaluations is due."""
        return self._step > 0 and any(self._step % every == 0 for every in self._every)


def validate(trainer: Trainer) -> None:
    """Validate amid training, as Lightning does after a step."""
    connector = trainer._logger_connector
    first, trainer.validating = connector._first_loop_iter, True
    trainer.fit_loop.epoch_loop.val_loop.run()
    trainer.training, connector._first_loop_iter = True, first


def is_last_step(trainer: Trainer) -> bool:
    """Whether training ends with the step that was just made."""
    if trainer.should_stop or trainer.global_step == trainer.max_steps:
        return True
    return trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
