"""Tokens that are what was written, or refused."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from zlib_ng.zlib_ng import crc32

from lit_pi.errors import UserError

BLOCK_BYTES = 1 << 16
"""Bytes of a block; the last has what is left."""


class CheckedTokens:
    """Tokens in a file, in memory only where they are read, and checked block by block when they first are.

    Args:
        file: the file of tokens.
        dtype: dtype of a token.
        checksums: CRC-32 of each block of `BLOCK_BYTES`.

    Attributes:
        dtype: dtype of a token.
        nbytes: size of the file.
    """

    def __init__(self, file: Path, dtype: np.dtype, checksums: NDArray[np.uint32]) -> None:
        self._file = file
        self._tokens = map_file(file, dtype)
        self._bytes = self._tokens.view(np.uint8)
        self._checksums = checksums
        self._intact = np.zeros(len(checksums), bool)
        self.dtype, self.nbytes = self._tokens.dtype, self._tokens.nbytes

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, extent: slice) -> NDArray[np.unsignedinteger]:
        """Consecutive tokens, a view of the file.

        Raises:
            UserError: a block that holds some of them is not what was written.
        """
        start, stop, _ = extent.indices(len(self))
        first, last = start * self.dtype.itemsize // BLOCK_BYTES, (stop * self.dtype.itemsize - 1) // BLOCK_BYTES
        if not self._intact[first : last + 1].all():
            self._check(first, last)
        return self._tokens[extent]

    def _check(self, first: int, last: int) -> None:
        for block in range(first, last + 1):
            begin = block * BLOCK_BYTES
            if not self._intact[block] and crc32(self._bytes[begin : begin + BLOCK_BYTES]) != self._checksums[block]:
                raise UserError(
                    f"{self._file} is damaged from byte {begin:,} on, by its checksum: delete the store "
                    f"{self._file.parent}, and it is built again"
                )
            self._intact[block] = True


def map_file(file: Path, dtype: np.dtype) -> NDArray:
    """The numbers of a file, in memory only where they are read."""
    # A plain view: slices of the memmap class cost three times as much.
    return np.memmap(file, dtype, mode="r").view(np.ndarray)
