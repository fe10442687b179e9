"""What a token store costs beside tokenising alone: the ratio of both, on the same text and cores.

python benchmarks/build_store.py [TOKENIZER [FILE ...]]

Without files, the text is the interpreter's own sources. The store reads and decompresses its files each time;
tokenising alone finds the text in memory.
"""

import os
import statistics
import sys
import tempfile
import time

from lit_pi.data.build import open_store
from lit_pi.data.corpora import Corpus, StandardLibrary, TextFiles
from lit_pi.data.corpora.corpus import Document
from lit_pi.data.tokenizer import load_tokenizer

RUNS = 5


def main() -> None:
    name, *files = sys.argv[1:] or ["bytes"]
    tokenizer = load_tokenizer(name)
    corpus: Corpus = TextFiles(train=files) if files else StandardLibrary(tests=True)
    texts = [item.text for item in corpus.documents("train") if isinstance(item, Document)]
    ratios = []
    for run in range(RUNS):
        start = time.perf_counter()
        tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        alone = time.perf_counter() - start
        with tempfile.TemporaryDirectory() as cache:
            os.environ["LIT_PI_CACHE"] = cache
            start = time.perf_counter()
            store = open_store(corpus, "train", tokenizer, show_progress=False)
            built = time.perf_counter() - start
        ratios.append(built / alone)
        print(f"run {run}: encode_batch_fast {alone:.2f} s, store {built:.2f} s, ratio {ratios[-1]:.3f}", flush=True)
    print(
        f"{store.manifest['bytes'] / 1e6:.1f} MB, {store.num_tokens:,} tokens of {tokenizer.name_or_path}: "
        f"building a store takes {statistics.median(ratios):.3f} times encode_batch_fast, median of {RUNS} runs"
    )


if __name__ == "__main__":
    main()
