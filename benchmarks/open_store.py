"""What opening a large token store costs, in seconds and in memory.

python benchmarks/open_store.py [GIGABYTES]
"""

import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from lit_pi.data.corpora.corpus import HASH_BYTES
from lit_pi.data.store import Batch, StoreWriter, TokenStore

DOCUMENT = 10_000
"""Tokens of a document."""


def write_store(directory: Path, gigabytes: float) -> None:
    """Documents of equal length, a batch of them again and again."""
    documents = 500
    batch = Batch(
        ids=[f"folder/document-{number}.txt" for number in range(documents)],
        tokens=np.arange(documents * DOCUMENT, dtype=np.uint16),
        lengths=np.full(documents, DOCUMENT),
        document_bytes=np.full(documents, 4 * DOCUMENT),
        prompt_tokens=np.zeros(documents, np.int64),
        sources=["folder"] * documents,
        hashes=[bytes(HASH_BYTES)] * documents,
        dropped=Counter(),
        cut=Counter(),
        duplicates=0,
    )
    with StoreWriter(directory, {"dtype": "uint16"}) as writer:
        for _ in range(round(gigabytes * 1e9 / batch.tokens.nbytes)):
            writer.append(batch)
        writer.finish()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "store"
        gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
        # In a process of its own, so that its memory is not in this one's peak.
        writer = get_context("spawn").Process(target=write_store, args=(directory, gigabytes))
        writer.start()
        writer.join()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = []
        for _ in range(7):
            start = time.perf_counter()
            store = TokenStore(directory)
            last = store.document(len(store) - 1)
            seconds.append(time.perf_counter() - start)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(
            f"{store.tokens.nbytes / 1e9:.2f} GB in {len(store):,} documents: opened, and the last document of "
            f"{len(last):,} tokens found, in {statistics.median(seconds) * 1e3:.1f} ms (median of 7); "
            f"peak memory grew by {grown / 1e3:.1f} MB"
        )


if __name__ == "__main__":
    main()
