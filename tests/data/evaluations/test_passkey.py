"""Passkey prompts are exact to the token with any tokenizer, and the same whatever reads them."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lit_pi.data.batches import IGNORE
from lit_pi.data.corpora import TextFiles
from lit_pi.data.evaluations import Passkey
from lit_pi.data.evaluations.passkey_prompts import FILLER, KEY, QUESTION, TASK, PromptBuilder
from lit_pi.data.tokenizer import load_tokenizer
from lit_pi.errors import UserError

TEXTS = [TASK + FILLER * 2 + KEY.format(key=key) + QUESTION + " " + key for key in ("12345", "12388", "99345")] * 20


def byte_level(split_digits: bool) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    digits = [pre_tokenizers.Digits(individual_digits=True)] if split_digits else []
    backend.pre_tokenizer = pre_tokenizers.Sequence([*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=None if split_digits else "<s>")


def sentence_piece() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Digits(individual_digits=True)]
    )
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>", "<s>"], initial_alphabet=list("0123456789"), show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="<unk>")


TOKENIZERS = {
    "bytes": lambda: load_tokenizer("bytes"),
    "merged digits": lambda: byte_level(split_digits=False),
    "split digits": lambda: byte_level(split_digits=True),
    "sentence piece": sentence_piece,
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_prompts_hold_the_template_and_the_key_at_the_token_that_was_asked_for(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    builder = PromptBuilder(tokenizer)
    generator = np.random.default_rng(0)
    for length in (600, 601, 777):
        for key in ("12345", "90817", "55555"):
            nearest, farthest = builder.distances(length, key)
            for distance in (nearest, nearest + 1, (nearest + farthest) // 2, farthest):
                prompt = builder.build(length, distance, key, generator)
                assert len(prompt.tokens) + len(prompt.answer) == length
                assert prompt.distance == distance
                text = tokenizer.decode(prompt.tokens.tolist())
                assert text.removeprefix("<s>").lstrip().startswith(TASK.split("\n")[0])
                assert text.endswith(QUESTION)
                assert text.count(KEY.format(key=key)) == 1
                assert tokenizer.decode([*prompt.tokens.tolist(), *prompt.answer.tolist()]).endswith(
                    f"{QUESTION} {key}"
                )
                before = tokenizer.decode(prompt.tokens[:-distance].tolist())
                behind = tokenizer.decode(prompt.tokens[-distance:].tolist()).lstrip()
                assert behind.startswith(key) and not before.rstrip().endswith(key[0] + key[1])
                assert before.endswith(("key is", "key is "))


def test_filler_of_ones_own_is_one_stretch_of_it(texts: object) -> None:
    text = np.arange(1000, 9000)
    builder = PromptBuilder(load_tokenizer("bytes"), text)
    prompt = builder.build(700, 300, "12345", np.random.default_rng(1))
    filler = prompt.tokens[prompt.tokens >= 1000]
    assert len(filler) > 300
    assert (np.diff(filler) == 1).all()
    with pytest.raises(UserError, match=r"the filler has 50 tokens and a prompt needs"):
        PromptBuilder(load_tokenizer("bytes"), text[:50]).build(700, 300, "12345", np.random.default_rng(1))


@pytest.mark.parametrize("mode", ["paper", "grid", "random"])
def test_questions_are_the_same_however_they_are_read(mode: str) -> None:
    tokenizer = load_tokenizer("bytes")

    def rows(batch_size: int, world_size: int, lengths: list[int]) -> dict[tuple, tuple]:
        passkey = Passkey(lengths, mode, distances=4, depths=3, trials=3, batch_size=batch_size, seed=7)
        passkey.prepare(tokenizer)
        batches = passkey.batches("passkey", tokenizer, world_size)
        assert len(batches) % world_size == 0
        found = {}
        for start in range(0, len(batches), world_size):
            assert len({batches[start + rank].input_ids.shape for rank in range(world_size)}) == 1
        for index in range(len(batches)):
            batch = batches[index]
            for number, ids, targets in zip(batch.documents.tolist(), batch.input_ids, batch.targets, strict=True):
                if number < 0:
                    assert (targets == IGNORE).all()
                    continue
                sample = passkey.samples[number]
                assert sample[:3] not in found
                key = tokenizer.decode(targets[targets != IGNORE])
                assert len(key) == 6 and tokenizer.decode(ids).endswith(f"The pass key is{key}")
                assert f"The pass key is{key}. Remember it." in tokenizer.decode(ids)
                found[sample[:3]] = tuple(ids.tolist())
        assert len(found) == len(passkey.samples)
        return found

    expected = rows(1, 1, [700, 500])
    assert rows(4, 3, [500, 700]) == expected
    assert {key: ids for key, ids in expected.items() if key[0] == 500} == rows(2, 1, [500])


def test_the_papers_distances_are_even_and_depths_reach_from_end_to_end() -> None:
    paper, grid = Passkey([3200], "paper"), Passkey([3200], "grid")
    for passkey in (paper, grid):
        passkey.prepare(load_tokenizer("bytes"))
    distances = [sample.distance for sample in paper.samples[::10]]
    assert distances[1:30] == [100 * k for k in range(2, 31)]
    assert distances[-1] < 3200
    assert [round(sample.depth, 2) for sample in grid.samples[::10]] == [round(0.1 * k, 2) for k in range(11)]
    for passkey in (paper, grid):
        for sample in passkey.samples[::37]:
            assert passkey.prompt(sample).distance == sample.distance


def test_lengths_without_room_are_refused(texts: object) -> None:
    with pytest.raises(UserError, match=r"of 100 tokens has no room for its template: \d+ tokens are the least"):
        Passkey([100]).prepare(load_tokenizer("bytes"))
    with pytest.raises(UserError, match="from 1 on"):
        Passkey([1000], trials=0)
    Passkey([400], filler=TextFiles(test=str(texts / "test"))).prepare(load_tokenizer("bytes"))
