"""Any dataset that the `datasets` library reads, on the hub or on this machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from lit_pi.data.corpora.corpus import Duplicates, Split, describe_files
from lit_pi.data.corpora.dataset_rows import BUILDERS, DataFiles, DatasetAddress, read_rows, saved_fingerprints
from lit_pi.data.corpora.records import Choice, Found, RecordCorpus, Value
from lit_pi.data.corpora.walking import walk
from lit_pi.errors import UserError
from lit_pi.hub import dataset_repository

BRING = (
    "bring its files (hf download --repo-type dataset) and name their folder in `path`, or, with `path: json`, "
    "`parquet` or `text`, the files in `data_files`"
)


class HubDataset(RecordCorpus):
    """A dataset of the hub, or any other that `datasets` reads; a row is a document, as is a plain text file.

    Rows are read one at a time into the token store. A dataset of the hub is streamed: nothing is copied to disk first.

    Args:
        path: an id on the hub, a folder that `save_to_disk` wrote, another folder of data files, or the name of one of
            the library's readers (`json`, `parquet`, `text`, ...) for `data_files`.
        name: the dataset's configuration, where it has several.
        split: name of the dataset's split to read, also a part of it (`train[:10%]`, without streaming), whichever is
            asked for; or such a name for each of `train`, `validation` and `test`. By default, those names themselves.
        text_field: column of the text, with dots between levels (`meta.text`); one that holds chat messages
            (`messages`) is written out by the tokenizer's template.
        revision: branch, tag or commit on the hub; name a commit to get the same documents on every machine.
        streaming: read files where they are; otherwise they are copied into the library's cache first.
        data_files: files to read, a pattern, a list of them, or those of each split. In a repository on the hub they
            are paths or globs, and are read even where the repository has a loading script, which is never run.
        held_out: instead of splits for `validation` and `test`, the share of the documents of `train` that a hash of
            their content puts into each of them.
        source_field: column that names a document's source, with dots between levels.
        weights: for each source, how many training sequences are drawn from it in relation to the others.
        where: take only documents whose fields (dots between levels) have this value, or one of these.
        min_bytes: documents with fewer UTF-8 bytes are left out.
        nulls: a row whose text is null can `stop` the command, or be left out (`drop`).
        duplicates: documents whose text came before are left out (`drop`), or kept and counted (`keep`).

    Raises:
        UserError: an option is out of its range.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        split: str | dict[str, str] | None = None,
        text_field: str = "text",
        revision: str | None = None,
        streaming: bool = True,
        data_files: DataFiles | None = None,
        held_out: float = 0.0,
        source_field: str | None = None,
        weights: dict[str, float] | None = None,
        where: dict[str, Value | list[Value]] | None = None,
        min_bytes: int = 0,
        nulls: Literal["stop", "drop"] = "stop",
        duplicates: Duplicates = "drop",
    ) -> None:
        super().__init__(
            Choice(held_out, text_field, source_field, weights, where, min_bytes, nulls=nulls, duplicates=duplicates)
        )
        if not path:
            raise UserError("path of HubDataset is empty: name an id on the hub or a folder")
        self.address = DatasetAddress(path, name, revision, streaming, data_files)
        if path in BUILDERS.values() and data_files is None and not self.address.place.exists():
            raise UserError(f"HubDataset reads {path}, and no files are named: name them in `data_files`")
        self.split = split

    @property
    def name(self) -> str:
        """`hub_dataset`."""
        return "hub_dataset"

    def records(self, split: Split) -> Iterator[tuple[str, Found]]:
        """The rows of a split."""
        wanted = self._name_of(split)
        for record in read_rows(self.address, wanted, wanted, self.reading, BRING):
            yield "", record

    def fingerprint(self, split: Split) -> dict[str, Any]:
        """The options, and what is known of local files; a dataset of the hub is known by its name and revision."""
        address = self.address
        found = {key: value for key, value in address._asdict().items() if key != "streaming"}
        if address.is_saved:
            found["saved"] = saved_fingerprints(address)
        return self.options(split) | {"dataset": found, "split": self._name_of(split), "files": self._local_files()}

    def origin(self, split: Split) -> dict[str, Any]:
        """The commit of a repository on the hub."""
        if not self.address.on_hub:
            return {}
        return {str(self.address): dataset_repository(self.address.path, self.address.revision).commit}

    def _name_of(self, split: Split) -> str:
        """The dataset's name of a split."""
        if isinstance(self.split, str):
            return self.split
        asked = "train" if self.choice.held_out else split
        return (self.split or {}).get(asked, asked)

    def _local_files(self) -> dict[str, Any] | None:
        address = self.address
        if address.on_hub:
            return None
        named = address.data_files.values() if isinstance(address.data_files, dict) else [address.data_files]
        patterns = [pattern for files in named for pattern in (files if isinstance(files, list) else [files])]
        folder = address.place if address.place.is_dir() else Path()
        found = [walk(str(folder / (pattern or ""))) for pattern in patterns]
        return describe_files(
            {
                path.relative_to(root).as_posix(): path
                for root, paths in found
                for path in paths.values()
                if path.is_file()
            }
        )
