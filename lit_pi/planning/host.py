"""The CPU's memory that a training step on a GPU takes."""

from collections import Counter


class PinnedMemory:
    """Blocks that GPUs read directly, as torch hands them out.

    Their sizes are powers of two. A block that was given back stays, and serves requests of its own size alone: most of
    each size at once is what is held.
    """

    def __init__(self) -> None:
        self._used: Counter[int] = Counter()
        self._held: Counter[int] = Counter()

    @property
    def bytes(self) -> int:
        """Bytes of all blocks, used or not."""
        return sum(size * number for size, number in self._held.items())

    def take(self, size: float) -> int:
        """The size of the block for so many bytes, which is in use from now on."""
        block = 1 << (max(1, round(size)) - 1).bit_length()
        self._used[block] += 1
        self._held[block] = max(self._held[block], self._used[block])
        return block

    def give_back(self, block: int) -> None:
        """A block of this size is free again."""
        self._used[block] -= 1
