"""The Pile."""

from typing import ClassVar

from lit_pi.data.corpora.records import Value
from lit_pi.data.corpora.text_files import Files, TextFiles

REPOSITORY = "hf://datasets/monology/pile-uncopyrighted@main"


class PileCorpus(TextFiles):
    """The Pile (Gao et al. 2020, arXiv 2101.00027), on which Chen et al. 2023 fine-tuned (section 3.1).

    JSON lines with `text` and `meta.pile_set_name`, the source of a document. On the hub, without the parts that had
    to be taken down: monology/pile-uncopyrighted. Most documents are shorter than a context window; `min_bytes` keeps
    the long ones, and what it leaves out is counted.

    Args:
        train: JSONL files to train on (see `TextFiles`).
        validation: JSONL files of the `validation` split.
        test: JSONL files of the `test` split.
        weights: for each source by its `pile_set_name`, how many training sequences are drawn from it in relation to
            the others; by default sequences are drawn from all documents alike.
        min_bytes: documents with fewer UTF-8 bytes are left out.
        where: take only documents whose fields have this value, for example `{meta.pile_set_name: [Books3, ArXiv]}`.
    """

    bring: ClassVar[str] = (
        "bring the Pile's files (train/*.jsonl.zst, val.jsonl.zst, test.jsonl.zst: JSON lines with `text` and "
        "`meta.pile_set_name`) and name them in `train`, `validation` and `test`"
    )

    def __init__(
        self,
        train: Files = f"{REPOSITORY}/train/*.jsonl.zst",
        validation: Files = f"{REPOSITORY}/val.jsonl.zst",
        test: Files = f"{REPOSITORY}/test.jsonl.zst",
        weights: dict[str, float] | None = None,
        min_bytes: int = 0,
        where: dict[str, Value | list[Value]] | None = None,
    ) -> None:
        super().__init__(
            train,
            validation,
            test,
            source_field="meta.pile_set_name",
            weights=weights,
            min_bytes=min_bytes,
            where=where,
        )

    @property
    def name(self) -> str:
        """`pile`."""
        return "pile"
