"""Documents as tokens in a directory: read by memory map, written a batch at a time."""

import os
from collections import Counter
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from numpy.typing import NDArray
from zlib_ng.zlib_ng import crc32

from lit_pi.data.corpora.corpus import HASH_BYTES
from lit_pi.data.documents.checked_tokens import BLOCK_BYTES, CheckedTokens, map_file
from lit_pi.errors import UserError
from lit_pi.files import as_text, file_checksum, read_sealed, remove, write_sealed

FORMAT = 5
"""Version of the files below."""

MANIFEST = "manifest.json"
CHECKSUMS = "checksums"
"""In the manifest: the CRC-32 of each file."""
TOKENS = "tokens.bin"
"""Token ids of all documents, in order."""
TOKEN_OFFSETS = "token_offsets.bin"
"""int64: where each document starts in the tokens, and the end of the last."""
DOCUMENT_BYTES = "document_bytes.bin"
"""int64: UTF-8 bytes of each document's text."""
PROMPT_TOKENS = "prompt_tokens.bin"
"""int64: how many of each document's tokens are its prompt."""
SOURCES = "sources.bin"
"""uint16: each document's place among the manifest's sources."""
HASHES = "hashes.bin"
"""Hash of each document's content, 16 bytes."""
IDS = "ids.bin"
"""Document ids in UTF-8, one after another."""
ID_OFFSETS = "id_offsets.bin"
"""int64: where each id starts, in bytes, and the end of the last."""
BLOCKS = "token_blocks.bin"
"""uint32: CRC-32 of each block of the tokens."""

INT64 = np.dtype("<i8")
UINT16 = np.dtype("<u2")
UINT32 = np.dtype("<u4")
UINT64 = np.dtype("<u8")
MAX_SOURCES = 1000
CHUNK = 1 << 20
"""Bytes of an unfinished store that are read at once."""


class TokenStore:
    """The tokens of a corpus' split, in memory only where they are read.

    It holds no special tokens but those of chat templates, no document without tokens, and every token of the others.
    All else is checked when the store is opened, and tokens when they are read.

    Args:
        directory: the folder that `open_store` has built.

    Attributes:
        manifest: format, digest of what it was made of, corpus, tokenizer, vocabulary size, dtype, the counts of
            documents, tokens and bytes, in all and by source, and each file's CRC-32.
        tokens: ids of all documents, one after another.
        offsets: where each document starts in `tokens`, and the end of the last (tokens).
        document_bytes: UTF-8 bytes of each document's prompt and text.
        prompt_tokens: tokens at each document's start that are its prompt.
        sources: for each document, the place of its source in `manifest["sources"]`.
        hashes: hash of each document's content before any limit, uint64 `[documents, 2]`.

    Raises:
        UserError: there is no store, it has another format, or a file is not what was written.
    """

    tokens: CheckedTokens | NDArray[np.unsignedinteger]

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        try:
            self.manifest = read_sealed(self.directory / MANIFEST)
        except (OSError, ValueError) as error:
            raise UserError(f"{directory} is no token store ({error}): delete it, and it is built again") from error
        if self.manifest.get("format") != FORMAT:
            raise UserError(f"{directory} has another format than {FORMAT}: delete it, and it is built again")
        for name, size in file_sizes(self.manifest).items():
            if not (file := self.directory / name).is_file() or file.stat().st_size != size:
                raise UserError(f"{file} is damaged, it should have {size} bytes: delete the store to build it again")
            if name != TOKENS and file_checksum(file) != self.manifest[CHECKSUMS].get(name):
                raise UserError(
                    f"{file} is damaged, by its checksum: delete the store {directory}, and it is built again"
                )
        blocks = self._map(BLOCKS, UINT32)
        self.tokens = CheckedTokens(self.directory / TOKENS, np.dtype(self.manifest["dtype"]), blocks)
        self.offsets = self._map(TOKEN_OFFSETS, INT64)
        self.document_bytes = self._map(DOCUMENT_BYTES, INT64)
        self.prompt_tokens = self._map(PROMPT_TOKENS, INT64)
        self.sources = self._map(SOURCES, UINT16)
        self.hashes = self._map(HASHES, UINT64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.document_bytes)

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return type(self), (self.directory,)

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents."""
        return len(self.tokens)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each document."""
        return np.diff(self.offsets)

    def document(self, index: int) -> NDArray[np.unsignedinteger]:
        """Token ids of a document, a view of the store.

        Raises:
            IndexError: there is no such document.
        """
        return self.tokens[slice(*self._extent(self.offsets, index))]

    def document_id(self, index: int) -> str:
        """The name by which a person recognises a document: a relative path, or `file:line`.

        Raises:
            IndexError: there is no such document.
        """
        start, stop = self._extent(self._id_offsets, index)
        return self._ids[start:stop].tobytes().decode(errors="surrogateescape")

    @cached_property
    def _ids(self) -> NDArray[np.uint8]:
        return self._map(IDS, np.dtype(np.uint8))

    @cached_property
    def _id_offsets(self) -> NDArray[np.int64]:
        return self._map(ID_OFFSETS, INT64)

    def _extent(self, offsets: NDArray[np.int64], index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"document {index} of a store of {len(self)}")
        return int(offsets[index]), int(offsets[index + 1])

    def _map(self, name: str, dtype: np.dtype) -> NDArray:
        return map_file(self.directory / name, dtype)


class Batch(NamedTuple):
    """Consecutive documents of a corpus, ready to be written.

    Attributes:
        ids: the name by which a person recognises each document.
        tokens: token ids of all documents, one after another.
        lengths: tokens of each document.
        document_bytes: UTF-8 bytes of each document.
        hashes: hash of each document's content.
        dropped: documents left out among them, by reason.
        cut: documents that lost tokens to a limit of the corpus, by the part that did.
        duplicates: documents that are kept though their content came before.
    """

    ids: list[str]
    tokens: NDArray[np.unsignedinteger]
    lengths: NDArray[np.int64]
    document_bytes: NDArray[np.int64]
    prompt_tokens: NDArray[np.int64]
    sources: list[str]
    hashes: list[bytes]
    dropped: Counter[str]
    cut: Counter[str]
    duplicates: int


class StoreWriter:
    """Appends batches to the files of a store so that a writer killed at any instant can be followed by another.

    The manifest is the journal: it is replaced after each batch, once the batch is on the disk, and what the files
    hold beyond it is cut off when the next writer starts. What a writer finds is checked before it goes on, and
    thrown away where it is damaged or is made of something else. A context manager.

    Args:
        directory: the folder where the files are, or will be.
        description: the manifest's constant part; `dtype` is that of the tokens.

    Attributes:
        manifest: `description`, and the counts and checksums up to the last complete batch.

    Raises:
        OSError: the files cannot be written.
    """

    def __init__(self, directory: Path, description: dict[str, Any]) -> None:
        self.directory = directory
        counts = {"read": 0, "kept": 0, "dropped": {}, "cut": {}, "duplicates": 0}
        nothing = {"documents": counts, "tokens": 0, "bytes": 0, "id_bytes": 0, "sources": {}}
        self.manifest = {"format": FORMAT, **description, **nothing}
        # A file of offsets begins with a zero.
        self._checksums = {name: _Checksum(bytes(size)) for name, size in _written(self.manifest).items()}
        self._files: dict[str, BinaryIO] = {}
        self._stack = ExitStack()
        if any(path.is_symlink() for path in (directory, *directory.glob("*"))) or directory.is_file():
            remove(directory)  # nothing of ours, and a link leads to what is another's
        elif (directory / MANIFEST).exists():
            try:
                self._go_on()
            except (OSError, ValueError) as error:
                rank_zero_info("%s was left unfinished, and is built anew: %s", directory, error)
                remove(directory)

    def _go_on(self) -> None:
        """Take over what an earlier writer has left, if it is what was written."""
        found = read_sealed(self.directory / MANIFEST)
        if any(found.get(key) != self.manifest.get(key) for key in ("format", "digest", "origin", "dtype")):
            raise ValueError("it was made of something else")
        checksums = {}
        for name, size in _written(found).items():
            checksums[name] = _Checksum()
            with (self.directory / name).open("rb") as file:
                while part := file.read(min(size, CHUNK)):
                    checksums[name].update(memoryview(part))
                    size -= len(part)
            if as_text(checksums[name].whole) != found[CHECKSUMS][name]:
                raise ValueError(f"{name} is not what was written, by its checksum")
        self.manifest, self._checksums = found, checksums

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        for name, size in _written(self.manifest).items():
            file = self._stack.enter_context((self.directory / name).open("ab"))
            file.truncate(size)
            self._files[name] = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def append(self, batch: Batch) -> None:
        """Write a batch and sync it to the disk; when this returns, it is part of the store.

        Raises:
            OSError: for instance when the disk is full; the batches before are safe.
        """
        ids = [name.encode(errors="surrogateescape") for name in batch.ids]
        id_lengths = np.fromiter(map(len, ids), INT64, len(ids))
        self._write(TOKENS, batch.tokens)
        self._write(TOKEN_OFFSETS, self.manifest["tokens"] + np.cumsum(batch.lengths, dtype=INT64))
        self._write(DOCUMENT_BYTES, batch.document_bytes.astype(INT64))
        self._write(PROMPT_TOKENS, batch.prompt_tokens.astype(INT64))
        self._write(SOURCES, self._count_sources(batch))
        self._write(HASHES, np.frombuffer(b"".join(batch.hashes), np.uint8))
        self._write(IDS, np.frombuffer(b"".join(ids), np.uint8))
        self._write(ID_OFFSETS, self.manifest["id_bytes"] + np.cumsum(id_lengths, dtype=INT64))
        for file in self._files.values():
            os.fsync(file.fileno())
        documents = self.manifest["documents"]
        dropped = Counter(documents["dropped"]) + batch.dropped
        self.manifest |= {
            "documents": {
                "read": documents["read"] + len(ids) + batch.dropped.total(),
                "kept": documents["kept"] + len(ids),
                "dropped": dict(sorted(dropped.items())),
                "cut": dict(sorted((Counter(documents["cut"]) + batch.cut).items())),
                "duplicates": documents["duplicates"] + batch.duplicates,
            },
            "tokens": self.manifest["tokens"] + len(batch.tokens),
            "bytes": self.manifest["bytes"] + int(batch.document_bytes.sum()),
            "id_bytes": self.manifest["id_bytes"] + int(id_lengths.sum()),
            CHECKSUMS: {name: as_text(checksum.whole) for name, checksum in self._checksums.items()},
        }
        write_sealed(self.directory / MANIFEST, self.manifest)

    def finish(self) -> None:
        """Write the checksums of the tokens' blocks, after the last batch."""
        (self.directory / BLOCKS).write_bytes(np.array(self._checksums[TOKENS].blocks, UINT32).tobytes())
        self.manifest[CHECKSUMS][BLOCKS] = file_checksum(self.directory / BLOCKS)
        write_sealed(self.directory / MANIFEST, self.manifest)

    def _count_sources(self, batch: Batch) -> NDArray[np.uint16]:
        """Add the batch to the counts by source, and give each document its source's place there."""
        sources = self.manifest["sources"]
        for source, tokens in zip(batch.sources, batch.lengths.tolist(), strict=True):
            count = sources.setdefault(source, {"documents": 0, "tokens": 0})
            count["documents"] += 1
            count["tokens"] += tokens
        if len(sources) > MAX_SOURCES:
            raise UserError(
                f"the corpus has more than {MAX_SOURCES:,} sources, for example {batch.sources[-1]!r}: "
                "let source_field name what many documents share"
            )
        places = {source: place for place, source in enumerate(sources)}
        return np.array([places[source] for source in batch.sources], UINT16)

    def _write(self, name: str, array: NDArray) -> None:
        self._files[name].write(array.data)
        self._files[name].flush()
        self._checksums[name].update(array.data)


class _Checksum:
    """The CRC-32 of what was written to a file, and of each block of it.

    Args:
        content: what was written so far.
    """

    def __init__(self, content: bytes = b"") -> None:
        self.whole = 0
        self.blocks: list[int] = []
        self._free = 0
        self.update(memoryview(content))

    def update(self, content: memoryview) -> None:
        self.whole = crc32(content, self.whole)
        rest = content.cast("B")
        while rest:
            if not self._free:
                self.blocks.append(0)
                self._free = BLOCK_BYTES
            part, rest = rest[: self._free], rest[self._free :]
            self.blocks[-1] = crc32(part, self.blocks[-1])
            self._free -= len(part)


def file_sizes(manifest: dict[str, Any]) -> dict[str, int]:
    """Bytes that each file of a store has, by the counts of its manifest."""
    documents = manifest["documents"]["kept"]
    tokens = manifest["tokens"] * np.dtype(manifest["dtype"]).itemsize
    return {
        TOKENS: tokens,
        TOKEN_OFFSETS: (documents + 1) * INT64.itemsize,
        DOCUMENT_BYTES: documents * INT64.itemsize,
        PROMPT_TOKENS: documents * INT64.itemsize,
        SOURCES: documents * UINT16.itemsize,
        HASHES: documents * HASH_BYTES,
        IDS: manifest["id_bytes"],
        ID_OFFSETS: (documents + 1) * INT64.itemsize,
        BLOCKS: -(-tokens // BLOCK_BYTES) * UINT32.itemsize,
    }


def _written(manifest: dict[str, Any]) -> dict[str, int]:
    """Bytes of the files that grow with every batch."""
    return {name: size for name, size in file_sizes(manifest).items() if name != BLOCKS}
