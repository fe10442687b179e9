"""Bytes of tokens add up to those of the text, for each kind of tokenizer, or it is said that they do not."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lit_pi.data.build import open_store
from lit_pi.data.corpora import Corpus
from lit_pi.data.corpora.corpus import Document, Split
from lit_pi.data.token_bytes import TokenBytes
from lit_pi.data.tokenizer import load_tokenizer
from lit_pi.evaluations import Perplexity

TEXTS = ["it was the best of times", "  the naïve age\n\tof 智慧 🙂 wisdom ", "times", "İ"]
PIECES = ["▁the", "▁it", "▁was", "▁of", "the", "times", "▁", "▁times", "best", "age", "a", "e", "i", "m", "s", "t", "ï"]

pytestmark = pytest.mark.usefixtures("store_cache")


class Texts(Corpus):
    """The texts above, with prompts if wanted."""

    def __init__(self, texts: list[str], prompt: str = "") -> None:
        self.texts = texts
        self.prompt = prompt

    @property
    def name(self) -> str:
        return "texts"

    def documents(self, split: Split) -> Iterator[Document]:
        for number, text in enumerate(self.texts):
            yield Document(f"d{number}", text, "", self.prompt)

    def fingerprint(self, split: Split) -> dict[str, Any]:
        return {"texts": self.texts, "prompt": self.prompt}


def sentencepiece(byte_fallback: bool = True, prefix: bool = True) -> PreTrainedTokenizerFast:
    """As LLaMA's: spaces are `▁`, one stands before the text, and what no piece has becomes its bytes."""
    pieces = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256) if byte_fallback), *PIECES]
    vocabulary = [(piece, -1.0 * len(piece) ** 0.5) for piece in pieces]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=byte_fallback))
    replace = normalizers.Replace(" ", "▁")
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prefix else replace
    steps = [decoders.Replace("▁", " "), *([decoders.ByteFallback()] if byte_fallback else []), decoders.Fuse()]
    backend.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>")


def metaspace() -> PreTrainedTokenizerFast:
    """As newer conversions of LLaMA's: no second `▁` before a text that begins with a space."""
    tokenizer = sentencepiece(prefix=False)
    tokenizer.backend_tokenizer.normalizer = None
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


@pytest.mark.parametrize("kind", ["bytes", "byte-level BPE", "prefix space", "SentencePiece", "no prefix", "Metaspace"])
@pytest.mark.parametrize("prompt", ["", "best of "])
def test_bytes_of_tokens_are_those_of_the_text(
    kind: str, prompt: str, words_tokenizer: PreTrainedTokenizerFast
) -> None:
    if kind == "prefix space":
        words_tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(words_tokenizer.backend_tokenizer.to_str()), bos_token="<s>"
        )
        words_tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer = {
        "bytes": load_tokenizer("bytes"), "byte-level BPE": words_tokenizer, "prefix space": words_tokenizer,
        "SentencePiece": sentencepiece(), "no prefix": sentencepiece(prefix=False), "Metaspace": metaspace(),
    }[kind]  # fmt: skip
    texts = TEXTS if not prompt else [text.lstrip() for text in TEXTS]
    store = open_store(Texts(texts, prompt), "test", tokenizer)
    table = TokenBytes(store, tokenizer)
    for number, text in enumerate(texts):
        sizes = table.of(number)
        assert sizes is not None and (sizes >= 0).all()
        assert sizes.sum() == len((prompt + text).encode())
        if kind == "bytes":
            assert (sizes == 1).all()


def test_first_tokens_have_the_bytes_that_they_stand_for() -> None:
    tokenizer = sentencepiece()
    store = open_store(Texts(["the times ï智"]), "test", tokenizer)
    names = tokenizer.convert_ids_to_tokens(store.document(0).tolist())
    sizes = TokenBytes(store, tokenizer).of(0)
    assert sizes is not None
    expected = {"▁the": 3, "▁times": 6, "▁": 1, "ï": 2}  # the space before `the` is not in the text
    assert [expected.get(name, 1) for name in names] == sizes.tolist()
    assert sizes.sum() == len("the times ï智".encode())


def test_unknown_bytes_are_spread_or_left_out() -> None:
    """`<unk>` stands for any number of bytes."""
    tokenizer = sentencepiece(byte_fallback=False)
    corpus = Texts(["the times", "智慧 the best of times"])
    store = open_store(corpus, "test", tokenizer)
    assert TokenBytes(store, tokenizer).of(0) is not None and TokenBytes(store, tokenizer).of(1) is None

    whole = Perplexity(corpus, context_lengths=[3], stride=1)
    whole.prepare(tokenizer)
    found = whole.token_bytes()
    assert found.token_bytes is not None and found.reason is None
    assert [round(float(sizes.sum()), 9) for sizes in found.token_bytes] == [9, len("智慧 the best of times".encode())]
    assert len(np.unique(found.token_bytes[1])) == 1
    cut = Perplexity(corpus, context_lengths=[3], stride=1, max_tokens=4)
    cut.prepare(tokenizer)
    assert cut.token_bytes().token_bytes is None
    assert "1 documents" in str(cut.token_bytes().reason)
