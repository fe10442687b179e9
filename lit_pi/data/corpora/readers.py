"""Documents out of files, format by format, without holding a whole file of many documents in memory."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow
from pyarrow.parquet import ParquetFile

from lit_pi.data.corpora.corpus import Document
from lit_pi.errors import UserError

PARQUET_ROWS = 64
"""Rows decoded at a time: long documents make even these many megabytes."""


class Undecodable(NamedTuple):
    """A document whose text is not valid Unicode.

    Attributes:
        id: what a person recognises it by.
        problem: where it is broken.
    """

    id: str
    problem: str


def read_documents(path: Path, name: str, text_field: str) -> Iterator[Document | Undecodable]:
    """The documents of one file, in the order of its lines or rows.

    Args:
        path: a file of a supported format.
        name: the file's id; lines and rows append their number, counted from 1.
        text_field: key or column of the text, where a file holds records.

    Raises:
        UserError: the file cannot be read, is damaged, or a record has no such text.
    """
    try:
        yield from _reader(path)(path, name, text_field)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"cannot read {path} ({error}): check its permissions, or bring an intact copy") from error


def is_supported(path: Path) -> bool:
    """Whether the file's ending names a format that can be read."""
    return path.name.lower().endswith(tuple(FORMATS))


def _reader(path: Path) -> "Reader":
    return next(reader for ending, reader in FORMATS.items() if path.name.lower().endswith(ending))


def _read_text(path: Path, name: str, _: str) -> Iterator[Document | Undecodable]:
    try:
        yield Document(name, _decode(path.read_bytes()))
    except UnicodeDecodeError as error:
        yield Undecodable(name, f"{path} is not UTF-8 at byte {error.start}")


def _read_jsonl(path: Path, name: str, text_field: str) -> Iterator[Document | Undecodable]:
    # Arrow's decompression notices a file that was cut off; zstandard's stream reader just ends there.
    with io.BufferedReader(pyarrow.input_stream(str(path), compression=_compression(path))) as lines:
        for number, line in enumerate(lines, start=1):
            place = f"{path}, line {number},"
            try:
                if text := _decode(line).strip():
                    yield _document(f"{name}:{number}", json.loads(text), text_field, place)
            except UnicodeDecodeError as error:
                yield Undecodable(f"{name}:{number}", f"{place} is not UTF-8 at byte {error.start} of the line")
            except UnicodeEncodeError as error:
                yield Undecodable(f"{name}:{number}", f"{place} escapes half a character at {error.start} of its text")
            except (json.JSONDecodeError, RecursionError) as error:
                raise UserError(f"{place} is not JSON ({error}): correct or remove the line") from error


def _read_parquet(path: Path, name: str, text_field: str) -> Iterator[Document | Undecodable]:
    with ParquetFile(path) as file:
        if text_field not in (columns := file.schema_arrow.names):
            raise UserError(f"{path} has no column {text_field!r}: set text_field to one of {', '.join(columns)}")
        number = 0
        for batch in file.iter_batches(PARQUET_ROWS, columns=[text_field]):
            for value in batch.column(0):
                number += 1
                place = f"{path}, row {number},"
                try:
                    record = {text_field: value.as_py()}
                except UnicodeDecodeError as error:
                    yield Undecodable(f"{name}:{number}", f"{place} is not UTF-8 at byte {error.start} of its text")
                else:
                    yield _document(f"{name}:{number}", record, text_field, place)


def _document(name: str, record: object, text_field: str, place: str) -> Document:
    """The document of a record.

    Raises:
        UserError: there is no such field, or it is not a string.
        UnicodeEncodeError: the text holds half of a surrogate pair.
    """
    if not isinstance(record, dict) or text_field not in record:
        raise UserError(f"{place} has no field {text_field!r}: set text_field to the one that holds the text")
    text = record[text_field]
    if not isinstance(text, str):
        kind = "null" if text is None else type(text).__name__
        raise UserError(f"{place} holds {kind} in {text_field!r}, not a string: correct or remove it")
    text.encode()
    return Document(name, text)


def _decode(data: bytes) -> str:
    """Text without the byte order mark that some editors put before it."""
    return data.decode().removeprefix("\ufeff")


def _compression(path: Path) -> str | None:
    return {".gz": "gzip", ".zst": "zstd"}.get(path.suffix.lower())


Reader = Callable[[Path, str, str], Iterator[Document | Undecodable]]

FORMATS: dict[str, Reader] = {
    ".txt": _read_text,
    ".md": _read_text,
    ".py": _read_text,
    ".tex": _read_text,
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".jsonl.zst": _read_jsonl,
    ".parquet": _read_parquet,
}
"""How to read files by their ending."""
