"""Numbers that a device makes in each step, read without waiting for it."""

from collections import deque

import torch
from torch import Tensor


class LateReader:
    """Reads numbers of a step on the CPU: at once from there, and from a GPU one step later, when they have arrived.

    All ranks read those of the same step after the same step, so that what they decide by them, they decide alike.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def put(self, step: int, numbers: Tensor) -> None:
        """Send the numbers of a step on their way."""
        if numbers.device.type != "cuda":
            self._waiting.append((step, numbers, None))
            return
        there = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
        there.copy_(numbers, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._waiting.append((step, there, event))

    def take(self, everything: bool = False) -> list[tuple[int, list[float]]]:
        """Steps and their numbers that are there and were not taken before.

        Args:
            everything: wait for those of the last step too.
        """
        found = []
        while self._waiting:
            step, numbers, event = self._waiting[0]
            if event is not None:
                if len(self._waiting) == 1 and not everything:
                    break
                event.synchronize()
            self._waiting.popleft()
            found.append((step, numbers.tolist()))
        return found
