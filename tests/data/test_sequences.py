"""Training sequences hold every token once, whatever the lengths of the documents."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_pi.batches import IGNORE
from lit_pi.data.packing import Packing, best_fit
from lit_pi.data.sequences import Sequences, collate

BOS, EOS = 1, 2


class Documents:
    """A store whose tokens are all different, so that a token tells where it stood."""

    def __init__(self, lengths: list[int], prompts: list[int] | None = None) -> None:
        self.lengths = np.array(lengths, dtype=np.int64)
        self.prompt_tokens = np.array(prompts or [0] * len(lengths), dtype=np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths + 10

    def __len__(self) -> int:
        return len(self.lengths)

    def document(self, index: int) -> np.ndarray:
        return np.arange(self.starts[index], self.starts[index] + self.lengths[index], dtype=np.uint16)


def tokenizer(bos: int | None = BOS, eos: int | None = EOS) -> SimpleNamespace:
    return SimpleNamespace(bos_token_id=bos, eos_token_id=eos)


def transitions(store: Documents, bos: int | None, eos: int | None) -> list[tuple[int, int]]:
    """All (token, next token) of all documents, but those whose next token is of a prompt."""
    pairs = []
    for index in range(len(store)):
        document, prompt = store.document(index).tolist(), int(store.prompt_tokens[index])
        stream = [*([bos] if bos else []), *document, *([eos] if eos else [])]
        pairs += [pair for pair in itertools.pairwise(stream) if pair[1] not in document[:prompt]]
    return sorted(pairs)


def trained(sequences: Sequences) -> list[tuple[int, int]]:
    rows = [sequences[index] for index in range(len(sequences))]
    return sorted(
        (source, target)
        for row in rows
        for source, target in zip(row["input_ids"].tolist(), row["targets"].tolist(), strict=True)
        if target != IGNORE
    )


@settings(max_examples=200, deadline=None)
@given(
    documents=st.lists(st.integers(0, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), max_size=12),
    context_length=st.sampled_from([8, 16]),
    packing=st.sampled_from(["packed", "single", "concatenated"]),
    specials=st.sampled_from([(BOS, EOS), (BOS, None), (None, EOS), (None, None)]),
    prompts=st.booleans(),
)
def test_every_token_is_learnt_once_from_the_one_before_it_or_left_out_for_a_reason(
    documents: list[tuple[int, int]],
    context_length: int,
    packing: Packing,
    specials: tuple[int | None, int | None],
    prompts: bool,
) -> None:
    lengths, prompt_tokens = [n for n, _ in documents], [prompt * prompts for _, prompt in documents]
    store = Documents(lengths, prompt_tokens)
    sequences = Sequences(store, tokenizer(*specials), context_length, packing)
    assert trained(sequences) == transitions(store, *specials)
    count = sequences.accounting()
    assert count.tokens == sum(lengths) + len(lengths) * sum(special is not None for special in specials)
    assert count.learnt == len(transitions(store, *specials))
    assert count.tokens == count.learnt + sum(count.left_out.values())
    held = sum(int((sequences[index]["document_ids"] >= 0).sum()) for index in range(len(sequences)))
    assert held + count.padded == len(sequences) * context_length
    for length in (context_length - 1, context_length, context_length + 1):  # a document of exactly a window
        one = Sequences(Documents([length]), tokenizer(None, None), context_length, packing)
        assert len(one) == (2 if length > context_length + 1 else 1)


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 16), min_size=1, max_size=40))
def test_best_fit_is_best_fit(sizes: list[int]) -> None:
    rooms: list[int] = []
    for size, chosen in zip(sizes, best_fit(np.array(sizes), 16).tolist(), strict=True):
        fits = [room for room in rooms if room >= size]
        assert (chosen < len(rooms)) == bool(fits)
        if fits:
            assert rooms[chosen] == min(fits)
        else:
            rooms.append(16)
        rooms[chosen] -= size


def test_a_choice_of_documents_gives_their_sequences_alone() -> None:
    store = Documents([20, 5, 33, 7], [0, 2, 30, 0])
    for packing in ("packed", "single", "concatenated"):
        chosen = Sequences(store, tokenizer(), 16, packing, np.array([1, 2]))
        both = transitions(store, BOS, EOS)
        inside = {token for index in (1, 2) for token in store.document(index).tolist()}
        assert trained(chosen) == sorted(pair for pair in both if inside & set(pair))


def test_single_documents_of_about_a_length_share_short_batches() -> None:
    sequences = Sequences(Documents([60, 3, 2, 40]), tokenizer(), 64, "single")
    assert [int((sequences[index]["document_ids"] >= 0).sum()) for index in range(4)] == [61, 41, 4, 3]
    short = collate([sequences[2], sequences[3]], trim=True)
    assert short.input_ids.shape == short.targets.shape == (2, 8)
    assert short.document_ids is None
    assert collate([sequences[1], sequences[3]], trim=True).input_ids.shape == (2, 48)
    assert collate([sequences[0]], trim=True).input_ids.shape == (1, 64)


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
        packing: Sequences(store, tokenizer(), 64, packing).accounting().padded
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
