"""Records out of files, format by format, without holding a whole file of many records in memory."""

import bz2
import io
import json
import lzma
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow
from pyarrow.parquet import ParquetFile

from lit_pi.data.corpora.corpus import Dropped
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
        fields: paths of fields that are wanted, with dots between levels; the first is the text.
        encodings: encodings of plain text files, tried in order; records are UTF-8 by their formats' definition.
        replace: put U+FFFD in place of what is not valid Unicode.
    """

    fields: Collection[str]
    encodings: Collection[str] = ("utf-8",)
    replace: bool = False

    @property
    def columns(self) -> list[str]:
        """The top-level fields of the paths, each once."""
        return list(dict.fromkeys(path.split(".")[0] for path in self.fields))

    def record(self, name: str, place: str, text: str | None) -> Record:
        """A record of nothing but a text."""
        value: Any = text
        for key in reversed(next(iter(self.fields)).split(".")):
            value = {key: value}
        return Record(name, place, value)


Reader = Callable[[Path, str, Reading], Iterator[Record | Undecodable | Dropped]]


def read_records(path: Path, name: str, reading: Reading) -> Iterator[Record | Undecodable | Dropped]:
    """The records of one file, in the order of its lines or rows; lines without anything in them are dropped.

    Args:
        path: a file of a supported format.
        name: the file's id; lines and rows append their number, counted from 1.
        reading: the fields and encodings to read.

    Raises:
        UserError: the file cannot be read or is damaged.
    """
    try:
        yield from FORMATS[_ending(path)](path, name, reading)
    except (OSError, EOFError, lzma.LZMAError, pyarrow.ArrowException) as error:
        raise UserError(f"cannot read {path} ({error}): check its permissions, or bring an intact copy") from error


def is_supported(path: Path) -> bool:
    """Whether the file's ending names a format that can be read."""
    ending = _ending(path)
    return ending in FORMATS and not (ending == ".parquet" and _compression(path) in COMPRESSIONS)


def _ending(path: Path) -> str:
    """The ending that names the format, before one that names a compression."""
    return (Path(path.stem) if _compression(path) in COMPRESSIONS else path).suffix.lower()


def _compression(path: Path) -> str:
    return path.suffix.lower()


def _open(path: Path) -> BinaryIO:
    return COMPRESSIONS[_compression(path)](path) if _compression(path) in COMPRESSIONS else path.open("rb")


def _arrow(compression: str) -> Callable[[Path], BinaryIO]:
    # Arrow's decompression notices a file that was cut off; zstandard's stream reader just ends there.
    return lambda path: io.BufferedReader(pyarrow.input_stream(str(path), compression=compression))


def _read_text(path: Path, name: str, reading: Reading) -> Iterator[Record | Undecodable]:
    with _open(path) as file:
        data = file.read()
    for encoding in reading.encodings:
        try:
            yield reading.record(name, str(path), _decode(data, encoding))
            return
        except UnicodeDecodeError as error:
            place = error.start
    if reading.replace:
        yield reading.record(name, str(path), _decode(data, next(iter(reading.encodings)), "replace"))
        return
    names = " or ".join(encoding.upper() for encoding in reading.encodings)
    yield Undecodable(name, f"{path} is not {names} at byte {place}")


def _read_lines(path: Path, name: str, reading: Reading) -> Iterator[Record | Undecodable | Dropped]:
    with _open(path) as lines:
        for number, line in enumerate(lines, start=1):
            place, own = f"{path}, line {number},", f"{name}:{number}"
            try:
                text = _decode(line, "utf-8", "replace" if reading.replace else "strict").strip()
            except UnicodeDecodeError as error:
                yield Undecodable(own, f"{place} is not UTF-8 at byte {error.start} of the line")
                continue
            yield _record(own, place, _parse(text, place), reading) if text else Dropped(own, "blank line")


def _read_json(path: Path, name: str, reading: Reading) -> Iterator[Record | Undecodable | Dropped]:
    """A list of records, or one record; a file of several lines, each of them JSON, is read line by line."""
    with _open(path) as file:
        data = file.read()
    try:
        content = json.loads(_decode(data, "utf-8", "replace" if reading.replace else "strict"))
    except UnicodeDecodeError as error:
        yield Undecodable(name, f"{path} is not UTF-8 at byte {error.start}")
        return
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise UserError(f"{path} is not JSON ({error}): correct it") from error
        yield from _read_lines(path, name, reading)
        return
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON that can be read ({_reason(error)}): correct it") from error
    if not isinstance(content, list):
        yield _record(name, str(path), content, reading)
        return
    for number, entry in enumerate(content, start=1):
        yield _record(f"{name}:{number}", f"{path}, entry {number},", entry, reading)


def _record(name: str, place: str, value: Any, reading: Reading) -> Record:
    """A record of a JSON value; one that is null has a text that is null, and others than objects have no fields."""
    if value is None:
        return reading.record(name, place, None)
    return Record(name, place, value if isinstance(value, dict) else {})


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # of an integer of thousands of digits, a plain ValueError
        raise UserError(f"{place} is not JSON ({_reason(error)}): correct or remove the line") from error


def _reason(error: Exception) -> str:
    return str(error).split(";")[0]


def _read_parquet(path: Path, name: str, reading: Reading) -> Iterator[Record | Undecodable]:
    with ParquetFile(path) as file:
        columns = file.schema_arrow.names
        for field in reading.columns:
            if field not in columns:
                raise UserError(f"{path} has no column {field!r}: its columns are {', '.join(columns)}")
        number = 0
        for batch in file.iter_batches(PARQUET_ROWS, columns=reading.columns):
            for row in range(len(batch)):
                number += 1
                place = f"{path}, row {number},"
                try:
                    fields = {field: batch.column(field)[row].as_py() for field in reading.columns}
                except UnicodeDecodeError as error:
                    yield Undecodable(f"{name}:{number}", f"{place} is not UTF-8 at byte {error.start} of its text")
                else:
                    yield Record(f"{name}:{number}", place, fields)


def _decode(data: bytes, encoding: str, errors: str = "strict") -> str:
    """Text without the byte order mark that some editors put before it."""
    return data.decode(encoding, errors).removeprefix("\ufeff")


COMPRESSIONS: dict[str, Callable[[Path], BinaryIO]] = {
    ".gz": _arrow("gzip"),
    ".zst": _arrow("zstd"),
    ".bz2": bz2.open,  # type: ignore[dict-item]
    ".xz": lzma.open,  # type: ignore[dict-item]
}
"""Decompression of files, by the last part of their ending."""
FORMATS: dict[str, Reader] = {
    ".txt": _read_text,
    ".md": _read_text,
    ".py": _read_text,
    ".tex": _read_text,
    ".jsonl": _read_lines,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
"""Readers of files, by their ending."""
ENDINGS = [*FORMATS, f"and all but .parquet with {', '.join(COMPRESSIONS)} behind"]
"""The supported endings, for messages."""
