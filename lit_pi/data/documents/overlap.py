"""Documents that a model was trained on, and how many of those that it is measured on are among them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lit_pi.data.store import CHECKSUMS, HASHES, UINT64, TokenStore
from lit_pi.errors import UserError

Hashes = NDArray[np.uint64]
"""Hashes of documents, `[documents, 2]`."""


def as_hashes(digests: Sequence[bytes]) -> Hashes:
    """The hashes of documents, as a store holds them."""
    return np.frombuffer(b"".join(digests), UINT64).reshape(-1, 2)


def training_record(store: TokenStore) -> dict[str, Any]:
    """Record of a store that a model was trained on, by which it is found again and recognised."""
    corpus = store.manifest["corpus"]
    return {
        "corpus": corpus["name"],
        "split": corpus["split"],
        "documents": len(store),
        "store": str(store.directory.resolve()),
        "hashes": store.manifest[CHECKSUMS][HASHES],
    }


def trained_on(hashes: Hashes, stores: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """How many documents are among those of training, by the hashes of their content.

    Args:
        hashes: hashes of the documents that are measured.
        stores: records of the stores that the model was trained on (see `training_record`).

    Returns:
        The number of `documents` that the model was trained on, `of` how many; the corpora that hold them (`in`); and
        the corpora whose stores are no longer there (`unknown`). None for the number where nothing is known.
    """
    found, inside, unknown, known = np.zeros(len(hashes), bool), [], [], False
    for record in stores:
        name = f"{record['corpus']}, {record['split']}"
        if (trained := _hashes(record)) is None:
            unknown.append(name)
            continue
        known = True
        # Half a hash decides among as many documents as there are.
        shared = np.isin(hashes[:, 0], trained[:, 0])
        if shared.any():
            inside.append(name)
        found |= shared
    documents = int(found.sum()) if known else None
    return {"documents": documents, "of": len(hashes), "in": inside, "unknown": unknown}


def in_words(found: Mapping[str, Any]) -> str:
    """The documents that a model was trained on, for people; empty where there are none."""
    if not found["documents"]:
        return ""
    return f"trained on {found['documents']:,} of {found['of']:,} documents"


def _hashes(record: Mapping[str, Any]) -> Hashes | None:
    """Hashes of a store's documents; None where the store is gone, or is another one now."""
    try:
        store = TokenStore(Path(record["store"]))
    except UserError:
        return None
    return store.hashes if store.manifest[CHECKSUMS][HASHES] == record["hashes"] else None
