"""Which rank reads what, and when: training order, resuming, and shares of an evaluation."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset, DataLoader, DistributedSampler

MIXTURE = 1000
"""Samples in which the weights of sources are kept, to the nearest sample."""


class EndlessOrder(DistributedSampler):
    """Passes over a dataset, each in its own order, cut into batches over the ranks.

    Sample i of the endless stream is the (i mod N)-th of the permutation that seed and pass i // N give. An epoch
    of Lightning takes up the stream where the one before left it, so no batch is short and nothing is dropped.

    A dataset of several sources in a row may be mixed by weights: then each `MIXTURE` samples in succession hold as
    many of each source as its weight says, in an order of their own, and each source has passes of its own.

    A subclass of `DistributedSampler`, because Lightning replaces any other sampler on several ranks.

    Args:
        sizes: samples of each source (N is their sum).
        seed: chooses the permutations.
        world_size: ranks that share the stream; rank r takes every world_size-th sample from the r-th on.
        rank: this rank.
        batch_size: samples of a batch of one rank; an epoch holds whole batches.
        consumed: tells how many samples all ranks together have consumed.
        weights: weights of the sources; None draws from all samples alike.
        neighbours: how many neighbours stay together in a permutation, shuffled among themselves.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        seed: int,
        world_size: int,
        rank: int,
        batch_size: int,
        consumed: Callable[[], int],
        weights: Sequence[float] | None = None,
        neighbours: int = 1,
    ) -> None:
        size = sum(sizes)
        super().__init__(range(size), num_replicas=world_size, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.num_samples = math.ceil(size / (world_size * batch_size)) * batch_size
        self._consumed = consumed
        if weights is None:
            self._sources = [Passes(size, (seed,), neighbours)]
            self._mixture = Mixture([1.0], seed)
        else:
            self._sources = [Passes(size, (seed, source), neighbours) for source, size in enumerate(sizes)]
            self._mixture = Mixture(weights, seed)
        self._offsets = np.cumsum([0, *sizes])

    def __iter__(self) -> Iterator[int]:
        start = self._consumed() + self.rank
        return (self.sample(start + step * self.num_replicas) for step in range(len(self)))

    def sample(self, index: int) -> int:
        """The index-th sample of the stream, of all ranks."""
        source, number = self._mixture.draw(index)
        return int(self._offsets[source]) + self._sources[source].sample(number)


class Passes:
    """Endless passes over samples, each in an order of its own.

    Args:
        size: samples of a pass.
        key: chooses the permutations, together with the number of the pass.
        neighbours: how many neighbours stay together, shuffled among themselves.
    """

    def __init__(self, size: int, key: tuple[int, ...], neighbours: int = 1) -> None:
        self.size = size
        self.key = key
        self.neighbours = neighbours
        self._number = -1
        self._permutation = np.empty(0, np.int64)

    def sample(self, index: int) -> int:
        """The index-th sample since the first pass began."""
        number, place = divmod(index, self.size)
        if number != self._number:
            self._permutation = self._permute(np.random.default_rng([*self.key, number]))
            self._number = number
        return int(self._permutation[place])

    def _permute(self, generator: np.random.Generator) -> NDArray[np.int64]:
        if self.neighbours == 1:
            return generator.permutation(self.size)
        starts = generator.permutation(math.ceil(self.size / self.neighbours)) * self.neighbours
        groups = generator.permuted(starts[:, None] + np.arange(self.neighbours), axis=1).ravel()
        return groups[groups < self.size]


class Mixture:
    """The source that each sample of an endless stream comes from.

    Args:
        weights: weights of the sources, none negative; a source with a positive weight is never left out.
        seed: chooses the order inside each `MIXTURE` samples.
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        shares = np.asarray(weights, float) / sum(weights) * MIXTURE
        self._counts = np.where(shares > 0, np.maximum(np.floor(shares), 1), 0).astype(np.int64)
        # Largest remainders; where small sources had to be lifted to one sample, the largest source pays.
        missing = MIXTURE - int(self._counts.sum())
        if missing > 0:
            self._counts[np.argsort(-(shares - self._counts), kind="stable")[:missing]] += 1
        else:
            self._counts[self._counts.argmax()] += missing
        self._seed = seed
        self._block = -1
        self._drawn = np.empty((0, 2), np.int64)

    def draw(self, index: int) -> tuple[int, int]:
        """The source of a sample, and how many samples of that source came before it."""
        if len(self._counts) == 1:
            return 0, index
        block, place = divmod(index, MIXTURE)
        if block != self._block:
            sources = np.repeat(np.arange(len(self._counts)), self._counts)
            sources = np.random.default_rng([self._seed, block, len(sources)]).permutation(sources)
            earlier = np.array([np.cumsum(sources == source) - 1 for source in range(len(self._counts))])
            before = block * self._counts[sources] + earlier[sources, np.arange(MIXTURE)]
            self._drawn, self._block = np.stack((sources, before), axis=1), block
        source, number = self._drawn[place].tolist()
        return source, number


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

    def documents_of(self, places: Iterable[int]) -> list[str]:
        """Names of the documents at places of the order, each once."""
        assert isinstance(self.sampler, EndlessOrder) and isinstance(self.dataset, ConcatDataset)
        found: dict[str, None] = {}
        ends = self.dataset.cumulative_sizes
        for number in map(self.sampler.sample, places):
            source = bisect_right(ends, number)
            before = ends[source - 1] if source else 0
            found |= dict.fromkeys(self.dataset.datasets[source].documents_of(number - before))  # type: ignore[attr-defined]
        return list(found)

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
