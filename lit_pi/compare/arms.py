"""Arms of a comparison: each a position strategy, and how the model is trained under it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lit_pi.models import LoRA
from lit_pi.positions import PositionStrategy, TrainPositions
from lit_pi.ranges import Natural, Positive


@dataclass
class Arm:
    """A position strategy, and how the model is trained under it.

    Args:
        position: the position strategy.
        steps: optimizer steps after which the model is measured, all of them in one training; 0 is the model as it is.
        learning_rate: that of the optimizer, instead of the common one; of several, the one is taken that is best on
            the validation split (see `tune_on`).
        adapter: train small matrices, instead of all weights.
        train_positions: the positions that tokens get in training.
        options: further options of `fit` and `test` for this arm alone, as `data.context_length: 256`.
    """

    position: PositionStrategy
    steps: Sequence[Natural] = (0,)
    learning_rate: Positive | Sequence[Positive] | None = None
    adapter: LoRA | None = None
    train_positions: TrainPositions | None = None
    options: dict[str, Any] = field(default_factory=dict)
