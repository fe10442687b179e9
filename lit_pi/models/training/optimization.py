"""The optimizer and the learning rate: the paper's defaults, schedules, and plateaus of what is measured."""

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LinearLR, LRScheduler

from lit_pi.errors import UserError

ADAMW: dict[str, Any] = {"lr": 2e-5, "betas": (0.9, 0.95), "weight_decay": 0.0}
"""The optimizer of Chen et al. 2023, section 3.1, for 7B and 13B (1e-5 for 33B and 65B)."""

WARMUP: dict[str, Any] = {"start_factor": 0.1, "total_iters": 20}
"""The learning rate of Chen et al. 2023, section 3.1: 20 steps of linear warm-up from 10% of the maximum."""

NEVER = 1 << 30
"""Epochs between Lightning's own steps of a plateau's scheduler: it would step on what was measured long ago."""


def adamw(params: Any) -> Optimizer:
    """Make AdamW as in the paper."""
    return AdamW(params, **ADAMW)


def warmup(optimizer: Optimizer) -> LRScheduler:
    """Make a linear warm-up as in the paper, constant afterwards."""
    return LinearLR(optimizer, **WARMUP)


def configured(
    make_optimizer: OptimizerCallable, make_scheduler: LRSchedulerCallable, parameters: Iterable[Parameter]
) -> OptimizerLRSchedulerConfig:
    """Make an optimizer and its scheduler, after another scheduler took two steps that train nothing.

    Raises:
        UserError: one of them does not take its options.
    """
    try:
        optimizer = make_optimizer(parameters)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise UserError(f"model.optimizer does not work with its options: {error}") from error
    try:
        tried = make_scheduler(AdamW([Parameter(torch.zeros(1))]))
        for _ in range(2):
            tried.optimizer.step()
            tried.step(0.0) if isinstance(tried, ReduceLROnPlateau) else tried.step()
        return {"optimizer": optimizer, "lr_scheduler": scheduler_config(make_scheduler(optimizer))}
    except (ValueError, TypeError, ArithmeticError, LookupError) as error:
        raise UserError(f"model.scheduler does not work with its options: {error}") from error


def scheduler_config(scheduler: LRScheduler | ReduceLROnPlateau) -> Any:
    """Say when a scheduler steps: with the optimizer, or, on plateaus, whenever its figure has been measured."""
    if isinstance(scheduler, ReduceLROnPlateau):
        return {"scheduler": scheduler, "monitor": scheduler.monitor, "interval": "epoch", "frequency": NEVER}
    return {"scheduler": scheduler, "interval": "step"}


def step_plateaus(trainer: Trainer) -> None:
    """Step the schedulers whose figure this validation has measured.

    Raises:
        UserError: no evaluation gives that figure.
    """
    found = trainer.callback_metrics
    for config in trainer.lr_scheduler_configs:
        if not config.reduce_on_plateau:
            continue
        if config.monitor in found:
            config.scheduler.step(found[config.monitor])  # type: ignore[arg-type]
            continue
        name = str(config.monitor).split("/")[0]
        evaluations = getattr(getattr(trainer, "datamodule", None), "evaluations", {})
        if name not in evaluations or any(key.startswith(f"{name}/") for key in found):
            raise UserError(
                f"the scheduler monitors {config.monitor}, which is not measured: there are {', '.join(sorted(found))}"
            )


def restart_schedule(trainer: Trainer, learning_rate: float, make_scheduler: LRSchedulerCallable) -> None:
    """Begin the schedule anew from another learning rate."""
    (optimizer,) = trainer.optimizers
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
        group.pop("initial_lr", None)
    for config in trainer.lr_scheduler_configs:
        config.scheduler = make_scheduler(optimizer)
