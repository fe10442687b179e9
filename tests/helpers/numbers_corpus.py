"""A corpus that takes its time, and what processes that build its store may meet."""

import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

from lit_pi.cli import run
from lit_pi.data import build
from lit_pi.data.corpora import Corpus, HubDataset, hub_dataset
from lit_pi.data.corpora.corpus import Document, Dropped, Split
from lit_pi.data.tokenizer import load_tokenizer


class Numbers(Corpus):
    """Documents of growing length, one of them empty, one of them left out; `delay` seconds apart."""

    def __init__(self, count: int = 300, delay: float = 0.0) -> None:
        self.count = count
        self.delay = delay

    @property
    def name(self) -> str:
        return "numbers"

    def documents(self, split: Split) -> Iterator[Document | Dropped]:
        for number in range(self.count):
            time.sleep(self.delay)
            yield (
                Dropped("a", "not UTF-8") if number == 3 else Document(f"doc {number} é", f"é{number} " * (number % 50))
            )

    def fingerprint(self, split: Split) -> dict[str, Any]:
        return {"count": self.count}


def build_slowly() -> None:
    """Build the store in batches, over more than a second."""
    build.BATCH_CHARACTERS = 2000
    build.open_store(Numbers(delay=0.005), "train", load_tokenizer("bytes"))


def build_dataset_slowly(path: str) -> None:
    """Build the store of a saved dataset in batches, over more than a second."""
    read = hub_dataset.read_rows

    def slowly(*arguments: Any) -> Iterator[Any]:
        for row in read(*arguments):
            time.sleep(0.005)
            yield row

    hub_dataset.read_rows = slowly
    build.BATCH_CHARACTERS = 2000
    build.open_store(HubDataset(path), "train", load_tokenizer("bytes"))


def on_a_full_disk(words: list[str]) -> None:
    """Run words of the command line where no file may have more than 4096 bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    sys.argv[1:] = words
    run()
