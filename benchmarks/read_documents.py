"""What documents cost to read by hand and through the `datasets` library: ratios, on the same local files.

python benchmarks/read_documents.py [FILE ...]

Without files, they are made of the interpreter's own sources, in every format. Nothing is tokenised.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet

from lit_pi.data.corpora import Corpus, Document, HubDataset, StandardLibrary, TextFiles
from lit_pi.data.corpora.dataset_rows import reader_of

RUNS = 5


def written(folder: Path) -> list[str]:
    """The interpreter's sources, in one file of each format, and as plain texts."""
    texts = [item.text for item in StandardLibrary(tests=True).documents("train") if isinstance(item, Document)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    (folder / "rows.jsonl").write_bytes(lines)
    with pyarrow.output_stream(str(folder / "rows.jsonl.zst"), compression="zstd") as file:
        file.write(lines)
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), folder / "rows.parquet")
    (folder / "texts").mkdir()
    for number, text in enumerate(texts):
        (folder / "texts" / f"{number:05}.txt").write_bytes(text.encode())
    return [str(folder / name) for name in ("rows.jsonl", "rows.jsonl.zst", "rows.parquet", "texts/*.txt")]


def seconds(corpus: Corpus) -> tuple[float, int]:
    """How long all documents take, and their characters."""
    start = time.perf_counter()
    size = sum(len(item.text) for item in corpus.documents("train") if isinstance(item, Document))
    return time.perf_counter() - start, size


def main() -> None:
    import datasets  # not a part of what is measured

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        for files in sys.argv[1:] or written(Path(folder)):
            by_hand, streamed = TextFiles(train=files), HubDataset(reader_of(files), data_files=files)
            ratios = []
            for _ in range(RUNS):
                (ours, size), (theirs, other) = seconds(by_hand), seconds(streamed)
                ratios.append(theirs / ours)
            print(
                f"{Path(files).name}: {size / 1e6:.1f} M characters, {size / ours / 1e6:.0f} M a second by hand; "
                f"`datasets` takes {statistics.median(ratios):.2f} times as long ({min(ratios):.2f} to "
                f"{max(ratios):.2f}, {RUNS} runs) and gives {'the same' if size == other else 'other'} text",
                flush=True,
            )


if __name__ == "__main__":
    main()
