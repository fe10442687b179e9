"""Losses in Parquet: sums of documents, out of which every figure follows, and the losses of tokens."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from lit_pi.batches import Scheme
from lit_pi.evaluations.parquet import read_columns
from lit_pi.evaluations.perplexity.measures import SeriesTotals
from lit_pi.evaluations.perplexity.token_scores import Series, TokenLosses
from lit_pi.files import beside

ROW_GROUP = 1 << 20
"""Rows (tokens) that are in memory at once, and a row group of the file."""
NUMERATOR, DENOMINATOR = "_numerator", "_denominator"
"""After a definition's name: columns whose sums' quotient is its figure."""


class DocumentSums(NamedTuple):
    """Numerators and denominators of one definition and series, by document."""

    documents: list[str]
    y: NDArray[np.float64]
    x: NDArray[np.float64]


def document_columns(ids: Sequence[str], totals: Sequence[SeriesTotals]) -> dict[str, Sequence]:
    """Return a row for each series and document, by column.

    Its columns are `document` (id), `scheme`, `context_length` (tokens), `tokens` (scored), `nll` (nats of them),
    `bytes` (UTF-8 bytes of them, null where not known), and for each definition `NAME_numerator` and
    `NAME_denominator`, null where it is not of these windows: exp(sum of numerators / sum of denominators) is its
    perplexity, and the quotient itself the bits per byte.
    """
    names = list(dict.fromkeys(name for entry in totals for name in entry.definitions))
    unknown = [None] * len(ids)
    columns: dict[str, Sequence] = {
        "document": [*ids] * len(totals),
        "scheme": [entry.series.scheme for entry in totals for _ in ids],
        "context_length": [entry.series.context_length for entry in totals for _ in ids],
        "tokens": [count for entry in totals for count in entry.tokens.astype(np.int64).tolist()],
        "nll": [value for entry in totals for value in entry.nll.tolist()],
        "bytes": [
            value for entry in totals for value in (unknown if entry.bytes is None else entry.bytes.tolist())
        ],
    }  # fmt: skip
    for name in names:
        found = [entry.definitions.get(name) for entry in totals]
        for ending, part in ((NUMERATOR, "y"), (DENOMINATOR, "x")):
            columns[name + ending] = [
                value for sums in found for value in (unknown if sums is None else getattr(sums, part).tolist())
            ]
    return columns


def write_tokens(path: Path, losses: TokenLosses) -> None:
    """Write a row for each token; the file is whole at any instant.

    Its columns are `document` (index in the protocol's `document_ids`), `position` (tokens from the document's start),
    and for each series `SCHEME_LENGTH`: the token's loss in nats, null where it was not scored.
    """
    types = [pyarrow.int32(), pyarrow.int32(), *(pyarrow.float32() for _ in losses.nll)]
    names = ["document", "position", *map(str, losses.nll)]
    schema = pyarrow.schema(list(zip(names, types, strict=True)))
    with beside(path) as partial, pyarrow.parquet.ParquetWriter(partial, schema, compression="zstd") as writer:
        for start in range(0, int(losses.offsets[-1]), ROW_GROUP):
            tokens = np.arange(start, min(start + ROW_GROUP, int(losses.offsets[-1])))
            document = np.searchsorted(losses.offsets, tokens, side="right") - 1
            arrays = [
                pyarrow.array(document.astype(np.int32)),
                pyarrow.array((tokens - losses.offsets[document]).astype(np.int32)),
                *(pyarrow.array(nll[tokens], from_pandas=True) for nll in losses.nll.values()),
            ]
            writer.write_table(pyarrow.table(arrays, schema=schema), row_group_size=ROW_GROUP)


def read_documents(run: Path, record: Mapping[str, Any]) -> dict[tuple[str, Series], DocumentSums]:
    """Numerators and denominators of a run's record, by definition and series.

    Raises:
        UserError: there is no such table, or it is damaged.
    """
    table = read_columns(run, record)
    documents, scheme = (np.array(table[name], object) for name in ("document", "scheme"))
    length = np.array(table["context_length"])
    names = [name.removesuffix(NUMERATOR) for name in table if name.endswith(NUMERATOR)]
    columns = {name: [np.array(table[name + end], np.float64) for end in (NUMERATOR, DENOMINATOR)] for name in names}
    schemes: dict[str, Scheme] = {"sliding": "sliding", "disjoint": "disjoint"}
    found = {}
    for kind, size in dict.fromkeys(zip(scheme.tolist(), length.tolist(), strict=True)):
        rows = (scheme == kind) & (length == size)
        for name, (y, x) in columns.items():
            if not np.isnan(x[rows]).any():
                found[name, Series(schemes[kind], size)] = DocumentSums(documents[rows].tolist(), y[rows], x[rows])
    return found
