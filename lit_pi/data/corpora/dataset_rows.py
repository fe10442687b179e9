"""Rows of what the `datasets` library reads, one at a time."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lit_pi.data.corpora.readers import Reading, Record
from lit_pi.errors import UserError
from lit_pi.hub import dataset_repository

DataFiles = str | list[str] | dict[str, str | list[str]]
SAVED = ("state.json", "dataset_dict.json")
"""Files by which a folder that `save_to_disk` wrote is known."""
BUILDERS = {
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".csv": "csv",
    **dict.fromkeys((".txt", ".md", ".py", ".tex"), "text"),
}
"""Names of the library's readers, by the ending of the files."""
COMPRESSIONS = {".gz", ".bz2", ".xz", ".zst"}


class DatasetAddress(NamedTuple):
    """Where a dataset is found.

    Attributes:
        path: an id on the hub, a folder, or the name of one of the library's readers (`json`, `parquet`, `text`, ...).
        name: its configuration.
        revision: branch, tag or commit on the hub.
        streaming: read it where it is; otherwise it is copied into the library's cache first.
        data_files: files to read, by split; with a repository on the hub, paths or globs in it.
    """

    path: str
    name: str | None = None
    revision: str | None = None
    streaming: bool = True
    data_files: DataFiles | None = None

    def __str__(self) -> str:
        if not self.on_hub:
            return self.path
        return f"hf://datasets/{self.path}{f'@{self.revision}' if self.revision else ''}"

    @property
    def place(self) -> Path:
        """The folder that the path names, which may not be there."""
        return Path(self.path).expanduser()

    @property
    def on_hub(self) -> bool:
        """Whether the path is the id of a repository."""
        return self.path.count("/") == 1 and self.path[0] not in "./~" and not self.place.exists()

    @property
    def is_saved(self) -> bool:
        """Whether the path is a folder that `save_to_disk` wrote."""
        return any((self.place / file).is_file() for file in SAVED)


def read_rows(address: DatasetAddress, split: str, name: str, reading: Reading, bring: str) -> Iterator[Record]:
    """The rows of a split, in their order.

    Args:
        address: where the dataset is found.
        split: name of the split there.
        name: the id of the rows, which their number, counted from 1, is appended to.
        reading: the fields to read.
        bring: advice for the case that the hub cannot be reached.

    Raises:
        UserError: there is no such dataset, split or column, or it cannot be read.
    """
    problem = dataset_repository(address.path, address.revision).problem if address.on_hub else ""
    if problem and address.streaming:
        raise UserError(f"cannot read {address} ({problem}): {bring}")
    try:
        with _offline(bool(problem)):
            dataset = _open(address, split)
        columns = dataset.column_names  # None where only the rows will tell
        if columns is not None:
            for column in reading.columns:
                if column not in columns:
                    raise UserError(f"{address} has no column {column!r}: its columns are {', '.join(columns)}")
            dataset = dataset.select_columns(reading.columns)
        for number, row in enumerate(dataset, start=1):
            yield Record(f"{name}:{number}", f"{address}, {split}, row {number},", row)
    except UserError:
        raise
    except Exception as error:  # whatever files of any format make of the library
        advice = bring if problem else "check `path`, `name`, `split` and `data_files`"
        raise UserError(f"cannot read {address}, {split} ({_reason(error)}): {advice}") from error


def saved_fingerprints(address: DatasetAddress) -> dict[str, str]:
    """The library's own fingerprints of a saved dataset, by the file that holds each."""
    states = sorted(address.place.rglob("state.json"))
    return {
        state.relative_to(address.place).as_posix(): json.loads(state.read_text()).get("_fingerprint", "")
        for state in states
    }


def hub_url(address: DatasetAddress, file: str) -> str:
    """The address under which the library finds a file of a repository."""
    return f"hf://datasets/{address.path}@{address.revision or 'main'}/{file}"


def _open(address: DatasetAddress, split: str) -> Any:
    import datasets  # takes a second

    if address.is_saved:
        found = datasets.load_from_disk(str(address.place))
        splits: Mapping[str, Any] = found if isinstance(found, dict) else {str(found.split or "train"): found}
        if split not in splits:
            raise UserError(f"{address} has no split {split!r}: name one of {', '.join(splits)} in `split`")
        return splits[split]
    builder = _builder(address)
    if address.streaming:
        return builder.as_streaming_dataset(split)
    builder.download_and_prepare()
    return builder.as_dataset(split)


def _builder(address: DatasetAddress) -> Any:
    import datasets

    path, revision, files = address.path, address.revision, address.data_files
    if address.on_hub and files is not None:
        # The library refuses a repository that has a loading script, but not its files.
        files = {split: [hub_url(address, file) for file in listed] for split, listed in _by_split(files).items()}
        path, revision = reader_of(next(iter(files.values()))[0]), None
    elif address.place.exists():
        path = str(address.place)
    options = {"name": address.name, "revision": revision, "data_files": files}
    builder = datasets.load_dataset_builder(path, **options)
    if hasattr(builder.config, "sample_by"):  # a plain text is a document, not each of its lines
        builder = datasets.load_dataset_builder(path, **options, sample_by="document")
    return builder


def _by_split(files: DataFiles) -> dict[str, list[str]]:
    named = files if isinstance(files, dict) else {"train": files}
    return {split: [listed] if isinstance(listed, str) else listed for split, listed in named.items()}


def reader_of(file: str) -> str:
    """Name of the library's reader for a file, by its ending.

    Raises:
        UserError: there is none.
    """
    path = Path(file)
    ending = Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix
    if ending not in BUILDERS:
        raise UserError(f"{file} has an ending that cannot be read: supported are {', '.join(BUILDERS)}")
    return BUILDERS[ending]


@contextmanager
def _offline(away: bool) -> Iterator[None]:
    """Where the hub is away, let the library look into its cache at once; it would ask for half a minute."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or away
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).split("\n")[0].rstrip(". ")
