"""What it costs to tokenise a corpus: lit_pi's token store against `datasets.map`, on the same file and cores.

python benchmarks/tokenize_corpus.py --output tokenize                          # a BPE trained on the text, then bytes
python benchmarks/tokenize_corpus.py --megabytes 500 --tokenizer PATH

The text is the interpreter's own sources as JSONL, again and again up to the size asked for. Both sides read it with
the same tokenizer and write what they made to disk, in turn. The rival is the usual script: `load_dataset`, and `map`
in batches with as many processes as cores. Both sides must find as many tokens.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import datasets
import pyarrow.compute
from transformers import PreTrainedTokenizerFast

from lit_pi.data.build import CORES, open_store
from lit_pi.data.corpora import StandardLibrary, TextFiles
from lit_pi.data.corpora.corpus import Document
from lit_pi.data.store import TokenStore
from lit_pi.data.tokenizer import load_tokenizer
from lit_pi.data.train_tokenizer import train_tokenizer

PLAIN = {"add_special_tokens": False, "split_special_tokens": True}
"""Text alone: `<s>` in a source is four characters, not the beginning of a document."""


def write_text(path: Path, megabytes: float) -> None:
    """JSONL of so much text; no two lines are alike."""
    texts = [item.text for item in StandardLibrary(tests=True).documents("train") if isinstance(item, Document)]
    written = copy = 0
    with path.open("w") as file:
        while written < megabytes * 1e6:
            for text in texts:
                written += file.write(json.dumps({"text": f"# {copy}\n{text}"}) + "\n")
                if written >= megabytes * 1e6:
                    break
            copy += 1


def with_store(path: Path, tokenizer: PreTrainedTokenizerFast, cache: Path) -> TokenStore:
    """A store that is built."""
    os.environ["LIT_PI_CACHE"] = str(cache)
    return open_store(TextFiles(train=str(path)), "train", tokenizer, show_progress=False)


def with_datasets(path: Path, tokenizer: PreTrainedTokenizerFast, cache: Path) -> datasets.Dataset:
    """A data set that is mapped."""
    text = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(cache))
    return text.map(
        lambda batch: {"input_ids": tokenizer(batch["text"], **PLAIN)["input_ids"]},
        batched=True,
        num_proc=CORES,
        remove_columns=text.column_names,
    )


def tokens_in(built: TokenStore | datasets.Dataset) -> int:
    """How many there are."""
    if isinstance(built, TokenStore):
        return built.num_tokens
    return pyarrow.compute.sum(pyarrow.compute.list_value_length(built.data.column("input_ids"))).as_py()


def compare(path: Path, tokenizer: PreTrainedTokenizerFast, repetitions: int) -> dict[str, list[float]]:
    """Seconds of both, one after the other."""
    seconds: dict[str, list[float]] = {"datasets.map": [], "lit_pi": []}
    for repetition in range(repetitions):
        counts = set()
        for side, build in (("datasets.map", with_datasets), ("lit_pi", with_store)):
            with tempfile.TemporaryDirectory() as cache:
                start = time.perf_counter()
                built = build(path, tokenizer, Path(cache))
                seconds[side].append(time.perf_counter() - start)
                counts.add(tokens_in(built))
        assert len(counts) == 1, f"both sides find other numbers of tokens: {counts}"
        print(f"{repetition}: { ({side: round(taken[-1], 2) for side, taken in seconds.items()}) }", file=sys.stderr)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=50)
    parser.add_argument("--tokenizer", nargs="+", default=["a BPE of 32,000 tokens", "bytes"], help="as in `data`")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--output", type=Path, help="stem of a JSON and a Markdown file")
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text.jsonl")
        write_text(path, arguments.megabytes)
        for name in arguments.tokenizer:
            if name.startswith("a BPE"):
                os.environ["LIT_PI_CACHE"] = folder
                train_tokenizer(StandardLibrary(), Path(folder, "bpe"), vocabulary_size=32_000)
            tokenizer = load_tokenizer(str(Path(folder, "bpe")) if name.startswith("a BPE") else name)
            found[name] = compare(path, tokenizer, arguments.repetitions)
    lines = [
        f"{CORES} cores, datasets {datasets.__version__}; {arguments.megabytes:g} MB of JSONL, "
        f"{arguments.repetitions} repetitions in turn\n",
        "| tokenizer | datasets.map, s (range) | lit_pi, s (range) | times as fast (range) |",
        "|:---|---:|---:|---:|",
    ]
    for name, seconds in found.items():
        ratios = [slow / fast for slow, fast in zip(seconds["datasets.map"], seconds["lit_pi"], strict=True)]
        figures = [*seconds.values(), ratios]
        cells = [f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})" for each in figures]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    print("\n".join(lines))
    if arguments.output:
        arguments.output.with_suffix(".json").write_text(json.dumps({"cores": CORES, "seconds": found}, indent=1))
        arguments.output.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
