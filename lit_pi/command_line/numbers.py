"""Numbers of a configuration: finite everywhere, and in their ranges where Lightning does not say them itself."""

import math
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_pi.command_line.leaves import leaves
from lit_pi.errors import UserError, shown
from lit_pi.ranges import Range

WORK = {
    "fit": "limit_train_batches",
    "validate": "limit_val_batches",
    "test": "limit_test_batches",
    "predict": "limit_predict_batches",
}
"""Options of the Trainer without whose batches a command does nothing."""
MOST_STEPS = 10**12
"""Optimizer steps of the longest run that anybody means."""
RANGES = {
    "seed_everything": Range(0, 2**32 - 1),
    "trainer.accumulate_grad_batches": Range(1),
    "trainer.check_val_every_n_epoch": Range(1),
    "trainer.gradient_clip_val": Range(0),
    "trainer.log_every_n_steps": Range(1),
    "trainer.max_epochs": Range(-1),
    "trainer.max_steps": Range(-1, MOST_STEPS),
    "trainer.num_nodes": Range(1),
    "trainer.num_sanity_val_steps": Range(-1),
    "trainer.overfit_batches": Range(0),
    "trainer.val_check_interval": Range(0, above=True),
    "checkpoint.every_n_train_steps": Range(0),
    "checkpoint.save_top_k": Range(-1),
    **{f"trainer.{option}": Range(0) for option in WORK.values()},
}
"""Ranges of options that are Lightning's."""


def check_numbers(subcommand: str, config: Namespace) -> None:
    """Check the numbers of a subcommand's configuration.

    Raises:
        UserError: one is not finite, not in its range or no time, or leaves nothing to do.
    """
    for key, value in leaves(config.as_dict()):
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key} is {value}, which is not finite: give a number that is")
    _check_time(config.get("trainer.max_time"))
    for option, allowed in RANGES.items():
        value = config.get(option)
        if isinstance(value, int | float) and not isinstance(value, bool):
            allowed.check(option, value)
    for option in (WORK.get(subcommand), *(("max_steps", "max_epochs") if subcommand == "fit" else ())):
        value = config.get(f"trainer.{option}")
        if value == 0 and not isinstance(value, bool):
            raise UserError(
                f"trainer.{option} is 0, which leaves `{subcommand}` nothing to do: raise it, or leave it out"
            )


def _check_time(limit: Any) -> None:
    """Check that a limit of time is one, and leaves some.

    Raises:
        UserError: it does not.
    """
    try:
        seconds = Timer(duration=limit)._duration
    except (MisconfigurationException, TypeError, ValueError, OverflowError) as error:
        given = shown(limit.as_dict() if isinstance(limit, Namespace) else limit)
        raise UserError(f"trainer.max_time is {given}, which is no time: write days:hours:minutes:seconds") from error
    if seconds is not None and seconds <= 0:
        raise UserError("trainer.max_time is no time at all, which leaves nothing to do: raise it, or leave it out")
