"""Long texts in pieces become the same tokens as whole ones."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from lit_pi.data.documents.cutting import cutter

WORDS = ["the", "The", "naïve", "Über", "русский", "中文", "it's", "x²", "3.14", "1000000", "a_b", "e\u0301t", "—"]
SPACES = [" ", " ", " ", "  ", "\n", "\n\n ", "\t", "\u00a0", " \u0301", ". ", ", ", "\r\n"]
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
GPT_2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
LOCAL = {
    "gpt-2": (None, GPT_2),
    "llama-3": (None, pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA_3), "isolated"), BYTES])),
    "qwen": (normalizers.NFC(), pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA_3), "isolated"), BYTES])),
    "digits": (None, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT_2])),
}
ELSE = {
    "one word": (None, BYTES),
    "prefix space": (None, pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "metaspace": (None, pre_tokenizers.Metaspace()),
    "none": (normalizers.Prepend("▁"), None),
    "lower case": (normalizers.Lowercase(), GPT_2),
}


def make_text(seed: int, words: int) -> str:
    draw = random.Random(seed)
    return "".join(draw.choice(WORDS) + draw.choice(SPACES) for _ in range(words))


def train(normalizer: normalizers.Normalizer | None, pre_tokenizer: pre_tokenizers.PreTokenizer | None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([make_text(seed, 300) for seed in range(20)], trainer)
    return tokenizer


TOKENIZERS = {name: train(*parts) for name, parts in (LOCAL | ELSE).items()}


@pytest.mark.parametrize("name", LOCAL)
@given(seed=st.integers(0, 2**32), characters=st.integers(1, 200))
def test_pieces_have_the_tokens_of_the_whole(name: str, seed: int, characters: int) -> None:
    tokenizer, text = TOKENIZERS[name], make_text(seed, 100)
    pieces = list(cutter(tokenizer)(text, characters))
    assert "".join(pieces) == text
    assert [i for piece in pieces for i in tokenizer.encode(piece).ids] == tokenizer.encode(text).ids


@pytest.mark.parametrize("name", LOCAL)
def test_long_text_is_cut(name: str) -> None:
    pieces = list(cutter(TOKENIZERS[name])(make_text(0, 5000), 1000))
    assert len(pieces) > 10
    assert all(1000 <= len(piece) < 1200 for piece in pieces[:-1])


@pytest.mark.parametrize("name", ELSE)
def test_tokenizers_that_look_beyond_words_get_the_whole(name: str) -> None:
    text = make_text(0, 500)
    assert list(cutter(TOKENIZERS[name])(text, 100)) == [text]


def test_added_tokens_with_letters_are_not_cut() -> None:
    tokenizer = train(*LOCAL["gpt-2"])
    tokenizer.add_tokens(["the naïve"])
    text = make_text(0, 500)
    assert list(cutter(tokenizer)(text, 100)) == [text]
