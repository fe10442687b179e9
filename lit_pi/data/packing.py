"""How documents fill training sequences; what is kept of it grows with the documents, not with their tokens."""

from abc import ABC, abstractmethod
from array import array
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Packing = Literal["packed", "single", "concatenated"]


class Piece(NamedTuple):
    """Positions `[begin, begin + positions)` of a document's stream, in tokens."""

    document: int
    begin: int
    positions: int


class Pieces(ABC):
    """The pieces of documents that each sequence holds: together every position of every document once."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of sequences."""

    @abstractmethod
    def __getitem__(self, index: int) -> list[Piece]:
        """The pieces of a sequence, in order."""


def cut(positions: NDArray[np.int64], length: int, packing: Packing) -> Pieces:
    """Cut documents of so many positions each into sequences of `length` positions."""
    if packing == "concatenated":
        return StreamPieces(positions, length)
    return DocumentPieces(positions, length, fill=packing == "packed")


class DocumentPieces(Pieces):
    """Full pieces are sequences of their own; what remains of a document is its rest.

    Rests fill sequences longest first, each into the sequence with the least room that takes it (best-fit
    decreasing), or stand alone, longest first.

    Args:
        positions: how many positions each document has.
        length: how many positions a sequence has.
        fill: put several rests into a sequence.
    """

    def __init__(self, positions: NDArray[np.int64], length: int, fill: bool) -> None:
        self.length = length
        self.full, self.rest = np.divmod(positions, length)
        self.full_ends = np.cumsum(self.full)
        with_rest = np.flatnonzero(self.rest)
        with_rest = with_rest[np.argsort(-self.rest[with_rest], kind="stable")]
        sequences = best_fit(self.rest[with_rest], length) if fill else np.arange(len(with_rest))
        self.with_rest = with_rest[np.argsort(sequences, kind="stable")]
        self.rest_ends = np.cumsum(np.bincount(sequences)) if len(sequences) else np.empty(0, np.int64)

    def __len__(self) -> int:
        return self._full_sequences + len(self.rest_ends)

    def __getitem__(self, index: int) -> list[Piece]:
        if index < self._full_sequences:
            document = int(np.searchsorted(self.full_ends, index, side="right"))
            number = index - int(self.full_ends[document] - self.full[document])
            return [Piece(document, number * self.length, self.length)]
        number = index - self._full_sequences
        start = int(self.rest_ends[number - 1]) if number else 0
        return [
            Piece(document, int(self.full[document]) * self.length, int(self.rest[document]))
            for document in self.with_rest[start : self.rest_ends[number]].tolist()
        ]

    @property
    def _full_sequences(self) -> int:
        return int(self.full_ends[-1]) if len(self.full_ends) else 0


class StreamPieces(Pieces):
    """All documents one after another, cut every `length` positions.

    Args:
        positions: how many positions each document has.
        length: how many positions a sequence has.
    """

    def __init__(self, positions: NDArray[np.int64], length: int) -> None:
        self.length = length
        self.ends = np.cumsum(positions)

    def __len__(self) -> int:
        return -(-int(self.ends[-1]) // self.length) if len(self.ends) else 0

    def __getitem__(self, index: int) -> list[Piece]:
        place, pieces = index * self.length, []
        stop = min(place + self.length, int(self.ends[-1]))
        document = int(np.searchsorted(self.ends, place, side="right"))
        while place < stop:
            start = int(self.ends[document - 1]) if document else 0
            end = min(int(self.ends[document]), stop)
            if end > place:
                pieces.append(Piece(document, place - start, end - place))
            place, document = end, document + 1
        return pieces


def best_fit(sizes: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    """The bin of each item under best-fit: the fullest bin that takes it, or a new one.

    Args:
        sizes: sizes of the items in the order of placing, each from 1 to the capacity.
        capacity: size of a bin.
    """
    bins = np.empty(len(sizes), np.int64)
    below = array("q")  # for each bin, the one that had the same room before it
    newest = [-1] * (capacity + 1)  # for each room, the bin that came to it last
    rooms = np.zeros(capacity + 1, dtype=bool)
    for item, size in enumerate(sizes.data):
        room = size + int(rooms[size:].argmax())
        if rooms[room]:
            chosen = newest[room]
            newest[room] = below[chosen]
            rooms[room] = newest[room] >= 0
        else:
            chosen, room = len(below), capacity
            below.append(-1)
        bins[item] = chosen
        if room > size:
            below[chosen] = newest[room - size]
            newest[room - size] = chosen
            rooms[room - size] = True
    return bins
