"""Archives of `torch.save`, whose records carry checksums that torch writes and does not check."""

import io
import mmap
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from zlib_ng.zlib_ng import crc32

_LOCAL = struct.Struct("<4s22xHH")
"""Head of a record: signature, and the lengths of its name and of what stands before its content."""
_SIGNATURE = b"PK\x03\x04"


class Archive:
    """The records of an archive; all that are not tensors are checked at once, and tensors when they are asked for.

    Args:
        content: the archive.

    Raises:
        ValueError: it is no archive, or a record is not what was written; the message ends a sentence.
    """

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._tensors: dict[str, tuple[slice, int]] = {}
        try:
            with zipfile.ZipFile(_Bytes(content)) as archive:
                records = archive.infolist()
        except Exception as error:  # damage shows in as many ways as there are
            raise ValueError(f"its list of records cannot be read: {error}") from error
        for record in records:
            extent = self._extent(record)
            if record.filename.split("/")[-2:-1] == ["data"]:
                self._tensors[record.filename] = extent, record.CRC
            else:
                self._check(record.filename, extent, record.CRC)
        self._known = {(extent.stop - extent.start, checksum) for extent, checksum in self._tensors.values()}

    def check_tensors(self, rank: int = 0, ranks: int = 1) -> None:
        """Check the content of the tensors.

        Args:
            rank: number of this process.
            ranks: processes that check a part each.

        Raises:
            ValueError: one is not what was written.
        """
        for name in list(self._tensors)[rank::ranks]:
            self._check(name, *self._tensors[name])

    def check_tensor(self, tensor: Tensor) -> None:
        """Check a tensor that torch has mapped from the archive.

        Raises:
            ValueError: it is none that was written there.
        """
        stored = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
        if len(stored) and (len(stored), crc32(stored.numpy())) not in self._known:
            raise ValueError("a tensor in it is not what was written, by its checksum")

    def _extent(self, record: zipfile.ZipInfo) -> slice:
        """Where a record's content is, as its own head says, which torch reads too."""
        if record.header_offset + _LOCAL.size > len(self._content):
            raise ValueError(f"{record.filename} lies beyond its end")
        signature, name, extra = _LOCAL.unpack_from(self._content, record.header_offset)
        begin = record.header_offset + _LOCAL.size + name + extra
        said = bytes(self._content[record.header_offset + _LOCAL.size :][:name])
        if signature != _SIGNATURE or said != record.orig_filename.encode():
            raise ValueError(f"{record.filename} is not where its list of records says")
        if record.compress_type != zipfile.ZIP_STORED or begin + record.file_size > len(self._content):
            raise ValueError(f"{record.filename} is not stored as torch stores it")
        return slice(begin, begin + record.file_size)

    def _check(self, name: str, extent: slice, checksum: int) -> None:
        if crc32(self._content[extent]) != checksum:
            raise ValueError(f"{name} in it is not what was written, by its checksum")


def content_of(file: Path) -> memoryview:
    """The bytes of a file, in memory only where they are read.

    Raises:
        OSError: it cannot be read.
        ValueError: it is empty.
    """
    with file.open("rb") as opened:
        return memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))


class _Bytes(io.RawIOBase):
    """Bytes as a file, without a copy."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._place = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + (0, self._place, len(self._content))[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        part = self._content[self._place : self._place + len(buffer)]
        buffer[: len(part)] = part
        self._place += len(part)
        return len(part)
