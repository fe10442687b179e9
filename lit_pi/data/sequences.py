"""Training sequences: which pieces of which documents stand in each sequence."""

from collections import defaultdict
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from lit_pi.data.batches import IGNORE, TrainingBatch
from lit_pi.data.store import TokenStore

Packing = Literal["packed", "single", "concatenated"]


class Sequences(Dataset):
    """Sequences of `context_length` positions that together train on every token of a store once.

    A document is the stream `<bos> tokens <eos>` (each where the tokenizer has it). Its pieces cover it without
    overlap: a piece of n positions trains the n tokens that follow them. Long documents are split, never cut off.

    Args:
        store: the documents.
        tokenizer: gives the ids of `<bos>` and `<eos>`.
        context_length: positions of a sequence (tokens).
        packing: `packed` fills a sequence with the rests of several documents, isolated from one another;
            `single` keeps one piece a sequence and pads it; `concatenated` cuts the stream of all documents,
            which then see each other, as older recipes did.
    """

    def __init__(
        self, store: TokenStore, tokenizer: PreTrainedTokenizerBase, context_length: int, packing: Packing
    ) -> None:
        self.store = store
        self.context_length = context_length
        self.isolated = packing != "concatenated"
        self.bos, self.eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        specials = (self.bos is not None) + (self.eos is not None)
        positions = np.maximum(np.asarray(store.lengths, dtype=np.int64) + specials - 1, 0)
        if packing == "concatenated":
            self.pieces, self.first = _cut_stream(positions, context_length)
        else:
            self.pieces, self.first = _cut_documents(positions, context_length, fill=packing == "packed")

    def __len__(self) -> int:
        return len(self.first) - 1

    def accounting(self) -> dict[str, int]:
        """Sequences, documents, positions that train a token, and positions that are padding."""
        trained = int(self.pieces[:, 2].sum())
        return {
            "documents": len(self.store),
            "sequences": len(self),
            "positions_trained": trained,
            "positions_padded": len(self) * self.context_length - trained,
        }

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Input ids, targets, position ids and document ids `[seq]`; padding is a document of its own."""
        length = self.context_length
        row = {
            "input_ids": torch.zeros(length, dtype=torch.long),
            "targets": torch.full((length,), IGNORE),
            "position_ids": torch.zeros(length, dtype=torch.long),
            "document_ids": torch.full((length,), -1),
        }
        start = 0
        for number, (document, begin, n) in enumerate(self.pieces[self.first[index] : self.first[index + 1]]):
            tokens = torch.from_numpy(self._stream(document, begin, begin + n + 1))
            place = slice(start, start + n)
            row["input_ids"][place] = tokens[:-1]
            row["targets"][place] = tokens[1:]
            row["position_ids"][place] = torch.arange(n) if self.isolated else torch.arange(start, start + n)
            row["document_ids"][place] = number if self.isolated else 0
            start += n
        return row

    def _stream(self, document: int, start: int, stop: int) -> NDArray[np.int64]:
        """Tokens `[start, stop)` of `<bos> tokens <eos>`."""
        tokens = self.store.document(document)
        offset = self.bos is not None
        inner = tokens[max(start - offset, 0) : stop - offset].astype(np.int64)
        before = [self.bos] if offset and start == 0 else []
        after = [self.eos] if self.eos is not None and stop - offset > len(tokens) else []
        return np.concatenate((np.array(before, np.int64), inner, np.array(after, np.int64)))


def collate(rows: list[dict[str, Tensor]]) -> TrainingBatch:
    """Stack rows; document ids are left out where each row holds one document (right padding needs no mask)."""
    batch: dict[str, Any] = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    if int(batch["document_ids"].max()) == 0:
        batch["document_ids"] = None
    return TrainingBatch(**batch)


def _cut_documents(
    positions: NDArray[np.int64], length: int, fill: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pieces (document, begin, positions) in order of sequences, and each sequence's first piece.

    Full pieces are sequences of their own. The rests, one a document, fill sequences longest first, each into the
    sequence with the least room that takes it (best-fit decreasing), or stand alone.
    """
    full, rest = np.divmod(positions, length)
    documents = np.repeat(np.arange(len(positions)), full)
    begins = (np.arange(len(documents)) - np.repeat(np.cumsum(full) - full, full)) * length
    pieces = [np.stack((documents, begins, np.full(len(documents), length)), axis=1)]
    sizes = [np.ones(len(documents), np.int64)]
    with_rest = np.flatnonzero(rest)
    bins = _best_fit(with_rest, rest, length) if fill else [[document] for document in with_rest.tolist()]
    if bins:
        order = np.concatenate([np.array(group) for group in bins])
        pieces.append(np.stack((order, full[order] * length, rest[order]), axis=1))
        sizes.append(np.array([len(group) for group in bins]))
    return np.concatenate(pieces), np.concatenate(([0], np.cumsum(np.concatenate(sizes))))


def _best_fit(documents: NDArray[np.int64], rest: NDArray[np.int64], length: int) -> list[list[int]]:
    """Groups of documents whose rests fit into `length` positions together."""
    by_room: dict[int, list[list[int]]] = defaultdict(list)
    bins: list[list[int]] = []
    rooms = np.zeros(length + 1, dtype=bool)
    for document in documents[np.argsort(-rest[documents], kind="stable")].tolist():
        need = int(rest[document])
        room = need + int(rooms[need:].argmax())
        if rooms[room]:
            group = by_room[room].pop()
            rooms[room] = bool(by_room[room])
        else:
            group, room = [], length
            bins.append(group)
        group.append(document)
        if room > need:
            by_room[room - need].append(group)
            rooms[room - need] = True
    return bins


def _cut_stream(positions: NDArray[np.int64], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The same for all documents one after another, cut every `length` positions."""
    ends = np.cumsum(positions)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.union1d(np.concatenate(([0], ends)), np.arange(0, total, length))
    begins, sizes = cuts[:-1], np.diff(cuts)
    documents = np.searchsorted(ends, begins, side="right")
    pieces = np.stack((documents, begins - (ends - positions)[documents], sizes), axis=1)
    return pieces, np.append(np.flatnonzero(begins % length == 0), len(pieces))
