"""Passkey prompts: read back, they are the template, to the token; and the same whatever reads them."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lit_pi.batches import IGNORE
from lit_pi.data.build import open_store
from lit_pi.data.corpora import TextFiles
from lit_pi.data.tokenizer import load_tokenizer
from lit_pi.errors import UserError
from lit_pi.evaluations import PasskeyRetrieval

SENTENCE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
LINES = re.compile(
    r"There is an important info hidden inside a lot of irrelevant text\. Find it and memorize them\. I will quiz you "
    r"about the important information there\.\n"
    r"(?P<before>.*)\n"
    r"The pass key is (?P<key>[1-9]\d{4})\. Remember it\. (?P=key) is the pass key\.\n"
    r"(?P<after>.*)\n"
    r"What is the pass key\? The pass key is (?P<answer>\d{5})",
    re.DOTALL,
)
"""A prompt and its answer, from the first character to the last."""

TEXTS = [
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz you "
    "about the important information there.\n" + SENTENCE,
    *(f"{SENTENCE}\nThe pass key is {key}. Remember it. {key} is the pass key.\n" for key in (12345, 12388, 99345)),
    *(f"\nWhat is the pass key? The pass key is {key}" for key in (12345, 12388, 99345)),
] * 20


def byte_level(split_digits: bool, bos: str | None) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    digits = [pre_tokenizers.Digits(individual_digits=True)] if split_digits else []
    backend.pre_tokenizer = pre_tokenizers.Sequence([*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos)


def llama_3() -> PreTrainedTokenizerFast:
    """Its pattern writes a full stop and the newline after it as one token, and digits in threes."""
    backend = Tokenizer(models.BPE())
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")


def metaspace() -> PreTrainedTokenizerFast:
    """Words with the space before them, which also the first one gets, and single digits."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    space = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.pre_tokenizer = pre_tokenizers.Sequence([space, pre_tokenizers.Digits(individual_digits=True)])
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>", "<s>"], initial_alphabet=list("0123456789"), show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="<unk>")


def llama_2() -> PreTrainedTokenizerFast:
    """A normalizer that writes a space first, no pre-tokenizer, and bytes for what is not in the vocabulary."""
    trained = metaspace()
    words = [token for token in trained.get_vocab() if "\n" not in token and not token.startswith("<")]
    vocab = {"<unk>": 0, "<s>": 1} | {f"<0x{byte:02X}>": 2 + byte for byte in range(256)}
    vocab |= {word: 258 + place for place, word in enumerate(sorted(words))}
    merges = json.loads(trained.backend_tokenizer.to_str())["model"]["merges"]
    merges = [tuple(merge) for merge in merges if "".join(merge) in vocab]
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="<unk>")


MAKERS = {
    "bytes": lambda: load_tokenizer("bytes"),
    "merged digits": lambda: byte_level(False, "<s>"),
    "split digits, no bos": lambda: byte_level(True, None),
    "llama 3": llama_3,
    "metaspace": metaspace,
    "llama 2": llama_2,
}


@pytest.fixture(scope="module", params=MAKERS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return MAKERS[request.param]()


def prepared(tokenizer: PreTrainedTokenizerFast, *args: Any, **kwargs: Any) -> PasskeyRetrieval:
    passkey = PasskeyRetrieval(*args, **kwargs)
    passkey.prepare(tokenizer)
    return passkey


def rows(
    passkey: PasskeyRetrieval, tokenizer: PreTrainedTokenizerFast, world_size: int = 1
) -> dict[int, tuple[list, list]]:
    """For each sample, the tokens of its row and the answer that is scored."""
    batches = passkey.batches("keys", tokenizer, world_size)
    found = {}
    for index in range(len(batches)):
        batch = batches[index]
        for number, ids, targets in zip(batch.documents.tolist(), batch.input_ids, batch.targets, strict=True):
            if number < 0:
                assert (targets == IGNORE).all()
                continue
            assert number not in found
            places = batch.scored[targets != IGNORE]
            assert torch.equal(ids[places + 1], targets[targets != IGNORE])
            found[number] = ids.tolist(), targets[targets != IGNORE].tolist()
    assert sorted(found) == list(range(len(passkey.samples)))
    return found


@pytest.mark.parametrize("mode", ["paper", "grid", "random"])
def test_read_back_a_prompt_is_the_template_and_key_and_length_are_exact(
    mode: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    passkey = prepared(tokenizer, [600, 701], mode, distances=9, depths=5, trials=4)
    endless = " ".join([SENTENCE] * 100)
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    for number, (ids, answer) in rows(passkey, tokenizer).items():
        sample = passkey.samples[number]
        assert len(ids) == sample.context_length
        assert ids[: len(bos)] == bos and not set(bos) & set(ids[len(bos) :])
        read = LINES.fullmatch(tokenizer.decode(ids[len(bos) :], clean_up_tokenization_spaces=False))
        assert read is not None
        assert read["answer"] == read["key"] == tokenizer.decode(answer).strip()
        assert endless.startswith(read["before"]) and endless.startswith(read["after"])
        # The key is written by the last `distance` tokens of the prompt, and no longer by one fewer.
        prompt = ids[: -len(answer)]
        behind, fewer = (
            tokenizer.decode(prompt[len(prompt) - k :]).lstrip() for k in (sample.distance, sample.distance - 1)
        )
        assert behind.startswith(f"{read['key']}. Remember it.")
        assert not fewer.startswith(read["key"]) and f"{read['key']}. Remember" not in fewer


def test_the_answer_is_written_as_after_the_question(tokenizer: PreTrainedTokenizerFast) -> None:
    passkey = prepared(tokenizer, [600], "grid", depths=2, trials=5)
    for ids, answer in rows(passkey, tokenizer).values():
        text = "green\nWhat is the pass key? The pass key is " + tokenizer.decode(answer).strip()
        natural = tokenizer(text, add_special_tokens=False).input_ids
        assert ids[-len(answer) - 4 :] == natural[-len(answer) - 4 :]


def test_the_papers_distances_are_equal_steps_as_far_as_the_template_allows() -> None:
    tokenizer = load_tokenizer("bytes")
    passkey = prepared(tokenizer, [3200], trials=1)
    assert [sample.nominal_distance for sample in passkey.samples] == [100 * k for k in range(1, 33)]
    nearest = len("12345. Remember it. 12345 is the pass key.\n\nWhat is the pass key? The pass key is")
    task = LINES.pattern.partition(r"\n(?P<before>")[0].replace("\\", "")
    farthest = 3200 - len(" 12345") - 1 - len(f"{task}\n\nThe pass key is ")
    assert nearest < 100 and 3000 < farthest < 3100
    assert [sample.distance for sample in passkey.samples] == [min(100 * k, farthest) for k in range(1, 33)]
    near = prepared(tokenizer, [320], trials=1)
    assert {sample.distance for sample in near.samples if sample.nominal_distance < nearest} == {nearest}


def test_depths_reach_from_the_very_start_of_the_filler_to_its_end() -> None:
    tokenizer = load_tokenizer("bytes")
    passkey = prepared(tokenizer, [1000], "grid", trials=1)
    found = [LINES.fullmatch(tokenizer.decode(ids[1:])) for ids, _ in rows(passkey, tokenizer).values()]
    assert found[0]["before"] == "" == found[-1]["after"]
    filler = len(found[0]["after"])
    for place, read in enumerate(found):
        assert len(read["before"]) == pytest.approx(filler * place / 10, abs=0.5)
        assert passkey.samples[place].depth == pytest.approx(place / 10, abs=0.5 / filler)


def test_drawn_depths_are_spread_and_keys_have_five_digits() -> None:
    tokenizer = load_tokenizer("bytes")
    passkey = prepared(tokenizer, [1000], "random", trials=200)
    depths = np.array([sample.depth for sample in passkey.samples])
    assert np.histogram(depths, 4, (0, 1))[0].min() > 30
    keys = [int(tokenizer.decode(answer)) for _, answer in rows(passkey, tokenizer).values()]
    assert len(set(keys)) > 190 and 10_000 <= min(keys) < 12_000 and 97_000 < max(keys) <= 99_999


@pytest.mark.parametrize("mode", ["paper", "grid", "random"])
def test_a_prompt_depends_on_neither_batches_nor_ranks_nor_other_lengths(mode: str, texts: Path) -> None:
    tokenizer = load_tokenizer("bytes")
    options: dict[str, Any] = {"distances": 3, "depths": 3, "trials": 3, "filler": TextFiles(test=str(texts / "test"))}

    def found(lengths: list[int], seed: int = 7, world_size: int = 1, batch_size: int = 1) -> dict[tuple, tuple]:
        passkey = prepared(tokenizer, lengths, mode, seed=seed, batch_size=batch_size, **options)
        read = rows(passkey, tokenizer, world_size)
        return {sample[:3]: read[number] for number, sample in enumerate(passkey.samples)}

    expected = found([500, 700])
    assert found([700, 500], world_size=3, batch_size=4) == found([500, 700], world_size=2, batch_size=2) == expected
    assert found([500]) == {place: row for place, row in expected.items() if place[0] == 500}
    assert len({tuple(answer) for _, answer in expected.values()}) == len(expected)
    other = found([500, 700], seed=8)
    assert all(other[place] != row for place, row in expected.items())


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_ranks_run_equal_forwards_the_longest_first(world_size: int) -> None:
    tokenizer = load_tokenizer("bytes")
    passkey = prepared(tokenizer, [500, 900, 700], "grid", depths=3, trials=1, batch_size=2)
    batches = passkey.batches("keys", tokenizer, world_size)
    assert len(batches) % world_size == 0
    lengths = []
    for start in range(0, len(batches), world_size):
        together = [batches[start + rank] for rank in range(world_size)]
        assert len({(b.input_ids.shape, b.targets.shape, b.spans, tuple(b.scored.tolist())) for b in together}) == 1
        assert all(len(batch.input_ids) <= 2 and batch.ranked for batch in together)
        lengths.append(together[0].input_ids.shape[1])
    assert lengths == sorted(lengths, reverse=True) and set(lengths) == {500, 700, 900}


def test_filler_of_ones_own_is_one_stretch_with_the_key_in_it(tmp_path: Path) -> None:
    for number in range(3):
        words = (f"{(number * 100_003 + 7919 * place) % 99_991:05d}" for place in range(200))
        (tmp_path / f"{number}.txt").write_text(" ".join(words))
    tokenizer, corpus = load_tokenizer("bytes"), TextFiles(test=str(tmp_path))
    text = tokenizer.decode(open_store(corpus, "test", tokenizer).tokens[:].tolist())
    passkey = prepared(tokenizer, [900], "grid", depths=5, trials=4, filler=corpus)
    starts = set()
    for ids, _ in rows(passkey, tokenizer).values():
        read = LINES.fullmatch(tokenizer.decode(ids[1:]))
        assert len(read["before"] + read["after"]) > 500
        assert read["before"] + read["after"] in text
        starts.add(text.index(read["before"] + read["after"]))
    assert len(starts) > 15
    assert passkey.describe()["filler"]["name"] == corpus.name
    with pytest.raises(UserError, match=r"has 3,597 tokens and the longest prompt needs 3,\d+: bring more text"):
        prepared(tokenizer, [4000], filler=corpus)


def test_the_least_length_is_named_and_works(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"context length of 20 tokens is too short") as error:
        prepared(tokenizer, [20, 800], "grid", depths=2, trials=40)
    least = int(re.search(r"context_lengths to (\d+) or more", str(error.value))[1])
    passkey = prepared(tokenizer, [least, 800], "grid", depths=2, trials=40)
    assert all(len(ids) in (least, 800) for ids, _ in rows(passkey, tokenizer).values())
    with pytest.raises(UserError, match=f"length of {least - 1} tokens"):
        prepared(tokenizer, [least - 1, 800], "grid", depths=2, trials=40)


def test_what_calls_of_the_tokenizer_left_behind_cuts_nothing() -> None:
    tokenizer = load_tokenizer("bytes")
    tokenizer("a longer text than that", truncation=True, max_length=3)
    passkey = prepared(tokenizer, [600], "grid", depths=2, trials=2)
    expected = rows(prepared(load_tokenizer("bytes"), [600], "grid", depths=2, trials=2), load_tokenizer("bytes"))
    assert rows(passkey, tokenizer) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context_lengths": []}, "context_lengths .* are empty"),
        ({"trials": 0}, "trials .* is 0: it must be 1 or more"),
        ({"depths": 0}, "depths .* is 0"),
        ({"seed": -1}, "seed .* is -1: it must be 0 or more"),
    ],
)
def test_nothing_to_ask_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PasskeyRetrieval(**options)


def test_a_tokenizer_without_digits_is_refused() -> None:
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "The": 1, "key": 2}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    blind = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    with pytest.raises(UserError, match=r"cannot write the passkey \d{5}"):
        prepared(blind, [600])
