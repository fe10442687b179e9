"""Which rank reads what, and when: training order, resuming, and shares of an evaluation."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, DistributedSampler


class EndlessOrder(DistributedSampler):
    """Passes over a dataset, each in its own order, cut into batches over the ranks.

    Sample i of the endless stream is the (i mod N)-th of the permutation that seed and pass i // N give. An epoch
    of Lightning takes up the stream where the one before left it, so no batch is short and nothing is dropped.

    A subclass of `DistributedSampler`, because Lightning replaces any other sampler on several ranks.

    Args:
        size: samples of the dataset (N).
        seed: chooses the permutations.
        world_size: ranks that share the stream; rank r takes every world_size-th sample from the r-th on.
        rank: this rank.
        batch_size: samples of a batch of one rank; an epoch holds whole batches.
        consumed: tells how many samples all ranks together have consumed.
    """

    def __init__(
        self, size: int, seed: int, world_size: int, rank: int, batch_size: int, consumed: Callable[[], int]
    ) -> None:
        super().__init__(range(size), num_replicas=world_size, rank=rank, seed=seed)  # type: ignore[arg-type]
        self._size = size
        self.num_samples = math.ceil(size / (world_size * batch_size)) * batch_size
        self._consumed = consumed
        self._pass = -1
        self._permutation = np.empty(0, np.int64)

    def __iter__(self) -> Iterator[int]:
        start = self._consumed() + self.rank
        return (self._sample(start + step * self.num_replicas) for step in range(len(self)))

    def _sample(self, index: int) -> int:
        number, place = divmod(index, self._size)
        if number != self._pass:
            self._permutation = np.random.default_rng([self.seed, number]).permutation(self._size)
            self._pass = number
        return int(self._permutation[place])


class ResumableLoader(DataLoader):
    """A DataLoader whose state, saved in Lightning's checkpoints, is the number of samples consumed.

    Args:
        args: positional arguments of `DataLoader`.
        progress: tells how many samples all ranks have consumed, and takes that number at a resume.
        kwargs: keyword arguments of `DataLoader`.
    """

    def __init__(self, *args: Any, progress: "Progress", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.progress = progress

    def state_dict(self) -> dict[str, int]:
        """Samples consumed by all ranks since the start of training."""
        return {"samples_consumed": self.progress.consumed()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after the samples that the checkpoint's run has consumed."""
        self.progress.resume(state["samples_consumed"])


class Progress:
    """Samples consumed, across stops and changes of the world size.

    Args:
        batches_processed: batches of this rank since the start of training, as Lightning counts and restores them.
        samples_per_batch: samples that all ranks together consume with one batch each.
    """

    def __init__(self, batches_processed: Callable[[], int], samples_per_batch: int) -> None:
        self._batches_processed = batches_processed
        self._samples_per_batch = samples_per_batch
        self._resumed_samples = 0
        self._resumed_batches = 0

    def consumed(self) -> int:
        """Samples consumed by all ranks."""
        batches = self._batches_processed() - self._resumed_batches
        return self._resumed_samples + batches * self._samples_per_batch

    def resume(self, samples: int) -> None:
        """Count on from `samples`."""
        self._resumed_samples = samples
        self._resumed_batches = self._batches_processed()


class RankShare(DistributedSampler):
    """Every world_size-th item from the rank's own on, in order, and none while the evaluation is not due.

    Args:
        size: items, a multiple of the world size.
        world_size: ranks that share the items.
        rank: this rank.
        due: tells whether the items are wanted at all this time.
    """

    def __init__(self, size: int, world_size: int, rank: int, due: Callable[[], bool]) -> None:
        super().__init__(range(size), num_replicas=world_size, rank=rank)  # type: ignore[arg-type]
        self._size = size
        self._due = due

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, self._size, self.num_replicas) if self._due() else ())
