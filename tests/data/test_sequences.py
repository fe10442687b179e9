"""Training sequences hold every token once, whatever the lengths of the documents."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_pi.data.batches import IGNORE
from lit_pi.data.sequences import Packing, Sequences, collate

BOS, EOS = 1, 2


class Documents:
    """A store whose tokens are all different, so that a token tells where it stood."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = np.array(lengths, dtype=np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths + 10

    def __len__(self) -> int:
        return len(self.lengths)

    def document(self, index: int) -> np.ndarray:
        return np.arange(self.starts[index], self.starts[index] + self.lengths[index], dtype=np.uint16)


def tokenizer(bos: int | None = BOS, eos: int | None = EOS) -> SimpleNamespace:
    return SimpleNamespace(bos_token_id=bos, eos_token_id=eos)


def transitions(store: Documents, bos: int | None, eos: int | None) -> list[tuple[int, int]]:
    """All (token, next token) of all documents."""
    pairs = []
    for index in range(len(store)):
        stream = [*([bos] if bos else []), *store.document(index).tolist(), *([eos] if eos else [])]
        pairs += list(itertools.pairwise(stream))
    return sorted(pairs)


def trained(sequences: Sequences) -> list[tuple[int, int]]:
    rows = [sequences[index] for index in range(len(sequences))]
    return sorted(
        (source, target)
        for row in rows
        for source, target in zip(row["input_ids"].tolist(), row["targets"].tolist(), strict=True)
        if target != IGNORE
    )


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    context_length=st.sampled_from([8, 16]),
    packing=st.sampled_from(["packed", "single", "concatenated"]),
    specials=st.sampled_from([(BOS, EOS), (BOS, None), (None, EOS), (None, None)]),
)
def test_every_token_is_learnt_once_from_the_one_before_it(
    lengths: list[int], context_length: int, packing: Packing, specials: tuple[int | None, int | None]
) -> None:
    store = Documents(lengths)
    sequences = Sequences(store, tokenizer(*specials), context_length, packing)
    assert trained(sequences) == transitions(store, *specials)
    count = sequences.accounting()
    assert count["positions_trained"] == len(transitions(store, *specials))
    assert count["positions_trained"] + count["positions_padded"] == len(sequences) * context_length


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=12))
def test_packed_documents_are_told_apart_and_count_from_zero(lengths: list[int]) -> None:
    store = Documents(lengths)
    sequences = Sequences(store, tokenizer(), 16, "packed")
    for index in range(len(sequences)):
        row = {name: tensor.tolist() for name, tensor in sequences[index].items()}
        for place in range(16):
            if row["targets"][place] == IGNORE:
                assert row["document_ids"][place] == -1
                continue
            goes_on = place > 0 and row["targets"][place - 1] == row["input_ids"][place] != BOS
            if goes_on and row["document_ids"][place - 1] == row["document_ids"][place]:
                assert row["position_ids"][place] == row["position_ids"][place - 1] + 1
            else:
                assert row["position_ids"][place] == 0
                assert place == 0 or row["document_ids"][place] != row["document_ids"][place - 1]


def test_packing_wastes_less_than_single_documents() -> None:
    store = Documents(list(range(1, 60)))
    padded = {
        packing: Sequences(store, tokenizer(), 64, packing).accounting()["positions_padded"]
        for packing in ("packed", "single", "concatenated")
    }
    assert padded["concatenated"] < 64 <= padded["packed"] * 20 < padded["single"] * 20
    assert padded["packed"] < 0.05 * 64 * len(Sequences(store, tokenizer(), 64, "packed")) < padded["single"]


def test_a_batch_of_whole_documents_needs_no_mask() -> None:
    sequences = Sequences(Documents([31, 31, 5, 6]), tokenizer(), 32, "packed")
    rows = [sequences[index] for index in range(len(sequences))]
    masks = [collate([row]).document_ids is None for row in rows]
    assert sorted(masks) == [False, True, True]
    assert collate(rows).document_ids is not None


@pytest.mark.parametrize("packing", ["packed", "single", "concatenated"])
def test_no_document_gives_no_sequence(packing: Packing) -> None:
    assert len(Sequences(Documents([0, 0]), tokenizer(None, None), 8, packing)) == 0
