"""PG-19: whole books."""

from typing import ClassVar

from lit_pi.data.corpora.text_files import Files, TextFiles

REPOSITORY = "hf://datasets/emozilla/pg19@main/data"


class PG19Corpus(TextFiles):
    """PG-19 (Rae et al. 2020, arXiv 1911.05507): books first published before 1919.

    Records with `text`, one a book, in Parquet or JSON lines. On the hub: emozilla/pg19. Chen et al. 2023 measure
    perplexity on the whole test split of 100 books (section 3.2, table 1).

    Args:
        train: Parquet or JSONL files to train on (see `TextFiles`); 28,602 books on the hub.
        validation: files of the `validation` split; 50 books on the hub.
        test: files of the `test` split; 100 books on the hub.
    """

    bring: ClassVar[str] = (
        "bring the books (Parquet or JSON lines with `text`, one record a book) and name the files in `train`, "
        "`validation` and `test`"
    )

    def __init__(
        self,
        train: Files = f"{REPOSITORY}/train-*.parquet",
        validation: Files = f"{REPOSITORY}/validation-*.parquet",
        test: Files = f"{REPOSITORY}/test-*.parquet",
    ) -> None:
        super().__init__(train, validation, test)

    @property
    def name(self) -> str:
        """`pg19`."""
        return "pg19"
