"""Records out of files, format by format, without holding a whole file of many records in memory."""

import io
import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
from pyarrow.parquet import ParquetFile

from lit_pi.errors import UserError

PARQUET_ROWS = 64
"""Rows decoded at a time: long documents make even these many megabytes."""


class Record(NamedTuple):
    """A record of a file, of which a document is made.

    Attributes:
        id: name by which a person recognises it.
        place: file and line, for messages.
        fields: the fields of a JSON object or a row; a plain text has one, the first that was asked for.
    """

    id: str
    place: str
    fields: dict[str, Any]


class Undecodable(NamedTuple):
    """A record whose text is not valid Unicode.

    Attributes:
        id: name by which a person recognises it.
        problem: the place where it is broken, for messages.
    """

    id: str
    problem: str


class Reading(NamedTuple):
    """Options of reading.

    Attributes:
        fields: top-level fields or columns that are wanted; the first is the text.
        encodings: encodings of plain text files, tried in order; records are UTF-8 by their formats' definition.
        replace: put U+FFFD in place of what is not valid Unicode.
    """

    fields: Collection[str]
    encodings: Collection[str] = ("utf-8",)
    replace: bool = False


def read_records(path: Path, name: str, reading: Reading) -> Iterator[Record | Undecodable]:
    """The records of one file, in the order of its lines or rows.

    Args:
        path: a file of a supported format.
        name: the file's id; lines and rows append their number, counted from 1.
        reading: the fields and encodings to read.

    Raises:
        UserError: the file cannot be read or is damaged.
    """
    try:
        yield from _reader(path)(path, name, reading)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"cannot read {path} ({error}): check its permissions, or bring an intact copy") from error


def is_supported(path: Path) -> bool:
    """Whether the file's ending names a format that can be read."""
    return path.name.lower().endswith(tuple(FORMATS))


def _reader(path: Path) -> "Reader":
    return next(reader for ending, reader in FORMATS.items() if path.name.lower().endswith(ending))


def _read_text(path: Path, name: str, reading: Reading) -> Iterator[Record | Undecodable]:
    data, field = path.read_bytes(), next(iter(reading.fields))
    for encoding in reading.encodings:
        try:
            yield Record(name, str(path), {field: _decode(data, encoding)})
            return
        except UnicodeDecodeError as error:
            place = error.start
    if reading.replace:
        yield Record(name, str(path), {field: _decode(data, next(iter(reading.encodings)), "replace")})
        return
    names = " or ".join(encoding.upper() for encoding in reading.encodings)
    yield Undecodable(name, f"{path} is not {names} at byte {place}")


def _read_jsonl(path: Path, name: str, reading: Reading) -> Iterator[Record | Undecodable]:
    # Arrow's decompression notices a file that was cut off; zstandard's stream reader just ends there.
    with io.BufferedReader(pyarrow.input_stream(str(path), compression=_compression(path))) as lines:
        for number, line in enumerate(lines, start=1):
            place = f"{path}, line {number},"
            try:
                text = _decode(line, "utf-8", "replace" if reading.replace else "strict").strip()
                fields = json.loads(text) if text else None
            except UnicodeDecodeError as error:
                yield Undecodable(f"{name}:{number}", f"{place} is not UTF-8 at byte {error.start} of the line")
                continue
            except (json.JSONDecodeError, RecursionError) as error:
                raise UserError(f"{place} is not JSON ({error}): correct or remove the line") from error
            if fields is not None:
                yield Record(f"{name}:{number}", place, fields if isinstance(fields, dict) else {})


def _read_parquet(path: Path, name: str, reading: Reading) -> Iterator[Record | Undecodable]:
    with ParquetFile(path) as file:
        columns = file.schema_arrow.names
        for field in reading.fields:
            if field not in columns:
                raise UserError(f"{path} has no column {field!r}: its columns are {', '.join(columns)}")
        number = 0
        for batch in file.iter_batches(PARQUET_ROWS, columns=list(reading.fields)):
            for row in range(len(batch)):
                number += 1
                place = f"{path}, row {number},"
                try:
                    fields = {field: batch.column(field)[row].as_py() for field in reading.fields}
                except UnicodeDecodeError as error:
                    yield Undecodable(f"{name}:{number}", f"{place} is not UTF-8 at byte {error.start} of its text")
                else:
                    yield Record(f"{name}:{number}", place, fields)


def _decode(data: bytes, encoding: str, errors: str = "strict") -> str:
    """Text without the byte order mark that some editors put before it."""
    return data.decode(encoding, errors).removeprefix("\ufeff")


def _compression(path: Path) -> str | None:
    return {".gz": "gzip", ".zst": "zstd"}.get(path.suffix.lower())


Reader = Callable[[Path, str, Reading], Iterator[Record | Undecodable]]

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
"""Readers of files, by their ending."""
