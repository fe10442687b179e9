"""Token stores ahead of time: built, shown and checked."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lit_pi.data.build import built_store, open_store
from lit_pi.data.corpora import Corpus, Split
from lit_pi.data.store import TokenStore
from lit_pi.data.tokenizer import load_tokenizer
from lit_pi.errors import printable
from lit_pi.files import beside

PICTURE = "lengths.png"


def prepare(
    corpus: Corpus, tokenizer: str = "bytes", splits: Sequence[Split] = ("train",), verify: bool = False
) -> None:
    """Build the token stores of a corpus ahead of a run, and show what is in them.

    A store that is there already is opened at once; a build that was killed is continued.

    Args:
        corpus: the corpus to build stores of.
        tokenizer: `bytes`, a directory, `tokenizer.json` or GGUF file, or an id on the hub.
        splits: the splits to build.
        verify: build nothing, and check the files of the stores that are there against their checksums.

    Raises:
        UserError: documents cannot be read, or, with `verify`, a store is missing or damaged.
    """
    loaded = load_tokenizer(tokenizer)
    for split in splits:
        if verify:
            store = built_store(corpus, split, loaded)
            store.tokens[:]  # what opening does not check
            print(f"{printable(str(store.directory))} is intact: every file has its checksum")
        else:
            _show(open_store(corpus, split, loaded))


def _show(store: TokenStore) -> None:
    """Print the manifest, and draw the lengths of the documents."""
    manifest = store.manifest
    documents, corpus = manifest["documents"], manifest["corpus"]
    title = f"{corpus['name']}, {corpus['split']}, as tokens of {manifest['tokenizer']['name']}"
    table = Table(title=escape(printable(title)))
    table.add_column("")
    for column in ("documents", "tokens"):
        table.add_column(column, justify="right")
    for source, count in sorted(manifest["sources"].items(), key=lambda item: -item[1]["tokens"]):
        if source or len(manifest["sources"]) > 1:
            share = f"{count['tokens'] / manifest['tokens']:.1%}"
            table.add_row(
                escape(printable(f"from {source} ({share} of tokens)")),
                f"{count['documents']:,}",
                f"{count['tokens']:,}",
            )
    table.add_section()
    table.add_row("in the store", f"{documents['kept']:,}", f"{manifest['tokens']:,}")
    for part, number in documents["cut"].items():
        table.add_row(f"of these with the {part} cut", f"{number:,}", "")
    if documents["duplicates"]:
        table.add_row("of these with the text of one before", f"{documents['duplicates']:,}", "")
    for reason, number in documents["dropped"].items():
        table.add_row(f"left out: {reason}", f"{number:,}", "")
    table.add_row("read", f"{documents['read']:,}", "")
    Console().print(table)
    lengths = store.lengths
    middle = ", ".join(f"{int(length):,}" for length in np.quantile(lengths, [0, 0.25, 0.5, 0.75, 1]))
    print(f"{manifest['bytes']:,} bytes of text, {manifest['bytes'] / manifest['tokens']:.2f} bytes a token")
    print(f"Tokens of a document (least, quartiles, most): {middle}")
    with beside(picture := store.directory / PICTURE) as partial:
        lengths_figure(lengths).savefig(partial, format=picture.suffix[1:])
    print("Store:", printable(str(store.directory)))
    print("Picture:", printable(str(picture)))


def lengths_figure(lengths: NDArray[np.int64]) -> Figure:
    """Histogram of document lengths, and the share of all tokens that stands in documents of at least each length.

    Args:
        lengths: tokens of each document.
    """
    figure = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlabel="tokens of a document", ylabel="documents", xscale="log")
    low, high = max(int(lengths.min()), 1), int(lengths.max())
    axes.hist(lengths, bins=np.geomspace(low / 1.05, high * 1.05, 41).tolist(), color="tab:blue", alpha=0.75)
    ordered = np.sort(lengths)
    share = axes.twinx()
    share.step(ordered, 1 - (np.cumsum(ordered) - ordered) / ordered.sum(), where="pre", color="tab:red")
    share.set_ylabel("tokens in documents at least as long", color="tab:red")
    share.set_ylim(0, 1.02)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    share.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.spines["top"].set_visible(False)
    share.spines["top"].set_visible(False)
    return figure
