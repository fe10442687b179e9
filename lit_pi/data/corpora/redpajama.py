"""RedPajama."""

from typing import ClassVar

from lit_pi.data.corpora.records import Value
from lit_pi.data.corpora.text_files import Files, TextFiles

REPOSITORY = "hf://datasets/togethercomputer/RedPajama-Data-1T-Sample@main"
CRAWLS = ("2019-30", "2020-05", "2021-04", "2022-05", "2023-06")
SOURCES = ("arxiv", "book", "c4", *(f"cc_{crawl}" for crawl in CRAWLS), "github", "stackexchange", "wikipedia")


class RedPajamaCorpus(TextFiles):
    """RedPajama-Data-1T (Weber et al. 2024, arXiv 2411.12372), the other corpus of Chen et al. 2023 (section 3.4).

    JSON lines with `text`; the sources are the names that `train` gives to its files. On the hub:
    togethercomputer/RedPajama-Data-1T-Sample, whose 11 files are one source each. It has no splits of its own, so a
    hash of their content holds documents out.

    Args:
        train: JSONL files to train on, by the name of their source (see `TextFiles`).
        held_out: share of the documents that goes into `validation`, and again into `test`.
        weights: for each source, how many training sequences are drawn from it in relation to the others; by default
            sequences are drawn from all documents alike.
        min_bytes: documents with fewer UTF-8 bytes are left out.
        where: take only documents whose fields have this value, or one of these.
    """

    bring: ClassVar[str] = (
        "bring its files (JSON lines with `text`, such as arxiv_sample.jsonl) and name them by source, "
        "`train: {arxiv: FOLDER/arxiv_sample.jsonl, ...}`"
    )

    def __init__(
        self,
        train: Files | None = None,
        held_out: float = 0.005,
        weights: dict[str, float] | None = None,
        min_bytes: int = 0,
        where: dict[str, Value | list[Value]] | None = None,
    ) -> None:
        super().__init__(
            train or {source: f"{REPOSITORY}/{source}_sample.jsonl" for source in SOURCES},
            held_out=held_out,
            weights=weights,
            min_bytes=min_bytes,
            where=where,
        )

    @property
    def name(self) -> str:
        """`redpajama`."""
        return "redpajama"
