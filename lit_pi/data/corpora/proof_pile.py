"""Proof-pile: mathematics."""

from typing import ClassVar

from lit_pi.data.corpora.records import Value
from lit_pi.data.corpora.text_files import Files, TextFiles

REPOSITORY = "hf://datasets/hoskinson-center/proof-pile@main"


class ProofPileCorpus(TextFiles):
    """Proof-pile (Azerbayev et al. 2022): mathematical papers, books and formal libraries.

    JSON lines with `text`. On the hub: hoskinson-center/proof-pile. Chen et al. 2023 measure perplexity on 128 random
    documents of its test split of at least 32,768 tokens, cut to 32,768 (section 3.2, table 2); `min_tokens`,
    `max_documents` and `max_tokens` of `Perplexity` draw them.

    Args:
        train: JSONL files to train on (see `TextFiles`).
        validation: JSONL files of the `validation` split.
        test: JSONL files of the `test` split.
        where: take only documents whose fields have this value, for example those of arXiv.
    """

    bring: ClassVar[str] = (
        "bring its files (train/*.jsonl.gz, dev/*.jsonl.gz, test/*.jsonl.gz: JSON lines with `text`) and name them in "
        "`train`, `validation` and `test`"
    )

    def __init__(
        self,
        train: Files = f"{REPOSITORY}/train/*.jsonl.gz",
        validation: Files = f"{REPOSITORY}/dev/*.jsonl.gz",
        test: Files = f"{REPOSITORY}/test/*.jsonl.gz",
        where: dict[str, Value | list[Value]] | None = None,
    ) -> None:
        super().__init__(train, validation, test, where=where)

    @property
    def name(self) -> str:
        """`proof_pile`."""
        return "proof_pile"
