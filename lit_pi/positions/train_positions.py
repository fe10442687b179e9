"""The positions that the tokens of a training sequence get, whatever the strategy makes of them."""

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Int
from torch import Tensor


class TrainPositions(ABC):
    """Maps the positions of training sequences to those that the model is trained at."""

    @abstractmethod
    def context_length(self, seq: int) -> int:
        """Tokens of context that sequences of `seq` tokens stand for."""

    @abstractmethod
    def __call__(
        self, position_ids: Int[Tensor, "batch seq"], input_ids: Int[Tensor, "batch seq"], step: int
    ) -> Int[Tensor, "batch seq"]:
        """Positions in tokens, on the CPU.

        Args:
            position_ids: place of each token in its document's piece; each piece starts at 0.
            input_ids: the tokens, of which random positions may depend.
            step: optimizer steps taken, likewise, so that another pass over the data draws anew.
        """

    def describe(self) -> dict[str, Any]:
        """Name the class and what it was given, in plain JSON."""
        given = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return {"class": type(self).__name__, **given}


class Contiguous(TrainPositions):
    """Every token at its own place, as in inference."""

    def context_length(self, seq: int) -> int:
        """The sequence's own tokens."""
        return seq

    def __call__(
        self, position_ids: Int[Tensor, "batch seq"], input_ids: Int[Tensor, "batch seq"], step: int
    ) -> Int[Tensor, "batch seq"]:
        """The places themselves."""
        return position_ids
