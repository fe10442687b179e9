"""The loops' own way to score, lent to evaluations before they begin."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer

from lit_pi.batches import ScoringBatch
from lit_pi.data.ranks import data_ranks
from lit_pi.evaluations.evaluation import Probe


@contextmanager
def probing(trainer: Trainer) -> Iterator[Probe]:
    """Lend the trainer's step as its loop will run it: on the device, wrapped, in evaluation mode, without gradients.

    The loop asks for its dataloaders when the model is loaded and in place, so a step may run before the first batch.
    """
    module, strategy = trainer.lightning_module, trainer.strategy
    step = strategy.test_step if trainer.testing else strategy.validation_step

    def score(batch: ScoringBatch) -> Sequence[torch.Tensor]:
        outputs: Any = step(strategy.batch_to_device(batch), 0)
        return outputs["token_nll"]

    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield Probe(score, data_ranks(trainer), strategy.root_device)
    finally:
        for part, training in modes.items():
            part.training = training
