"""A store holds the tokenizer's tokens, whatever happened while it was built."""

import pickle
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launched import command_lines, start
from numbers_corpus import Numbers, build_slowly, on_a_full_disk
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lit_pi.data import build as build_module
from lit_pi.data.build import open_store
from lit_pi.data.corpora import Corpus, TextFiles
from lit_pi.data.corpora.corpus import Document, Dropped, Split
from lit_pi.data.store import TokenStore
from lit_pi.data.tokenizer import load_tokenizer
from lit_pi.errors import UserError


def files(store: TokenStore) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.directory.iterdir()}


@pytest.mark.usefixtures("store_cache")
def test_a_store_holds_what_the_tokenizer_says(
    monkeypatch: pytest.MonkeyPatch, words_tokenizer: PreTrainedTokenizerFast
) -> None:
    monkeypatch.setattr(build_module, "BATCH_CHARACTERS", 2000)
    for tokenizer in (words_tokenizer, load_tokenizer("bytes")):
        store = open_store(Numbers(), "train", tokenizer)
        documents = [item for item in Numbers().documents("train") if isinstance(item, Document) and item.text]
        assert len(store) == len(documents)
        assert store.tokens.dtype == np.uint16
        for index, document in enumerate(documents):
            expected = tokenizer(document.text, add_special_tokens=False, truncation=False).input_ids
            assert store.document(index).tolist() == expected
            assert store.document_id(index) == document.id
            assert store.document_bytes[index] == len(document.text.encode())
        assert store.manifest["documents"] == {
            "read": 300, "kept": len(documents), "dropped": {"empty": 6, "not UTF-8": 1}, "cut": {}, "duplicates": 0,
        }  # fmt: skip
        assert store.manifest["tokens"] == store.num_tokens == store.lengths.sum()
        assert pickle.loads(pickle.dumps(store)).document(1).tolist() == store.document(1).tolist()


class Mapped(Corpus):
    """One document of three words."""

    name = "mapped"

    def documents(self, split: Split) -> Iterator[Document | Dropped]:
        yield Document("the-document", "low high low")

    def fingerprint(self, split: Split) -> dict[str, Any]:
        return {}


def word_tokenizer(vocabulary: dict[str, int]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="low"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize(("size", "dtype"), [(65_536, np.uint16), (65_537, np.uint32), (150_000, np.uint32)])
@pytest.mark.usefixtures("store_cache")
def test_the_largest_token_of_a_vocabulary_of_any_size_is_kept(size: int, dtype: type) -> None:
    words = {"low": 0, "high": size - 1} | {f"w{number}": number for number in range(1, size - 1)}
    store = open_store(Mapped(), "train", word_tokenizer(words))
    assert store.tokens.dtype == dtype
    assert store.document(0).tolist() == [0, size - 1, 0]


@pytest.mark.usefixtures("store_cache")
def test_a_token_beyond_the_vocabulary_is_told_with_its_document() -> None:
    with pytest.raises(UserError, match=r"document the-document has token 70000, .* vocabulary ends at 1"):
        open_store(Mapped(), "train", word_tokenizer({"low": 0, "high": 70_000}))


@pytest.mark.usefixtures("store_cache")
def test_text_that_looks_like_a_special_token_stays_text(
    tmp_path: Path, words_tokenizer: PreTrainedTokenizerFast
) -> None:
    (tmp_path / "tricky.txt").write_text("</s> and <s>")
    for tokenizer in (words_tokenizer, load_tokenizer("bytes")):
        store = open_store(TextFiles(train=str(tmp_path / "tricky.txt")), "train", tokenizer)
        tokens = store.document(0).tolist()
        assert not {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(tokens)
        assert tokenizer.decode(tokens) == "</s> and <s>"


def test_a_store_is_built_once(store_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(Numbers(), "train", load_tokenizer("bytes"))
    monkeypatch.setattr(Numbers, "documents", lambda *_: pytest.fail("read again"))
    assert open_store(Numbers(), "train", load_tokenizer("bytes")).directory == store.directory
    assert store.directory.is_relative_to(store_cache)


def test_a_killed_build_goes_on_and_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = start(build_slowly, folder=tmp_path, LIT_PI_CACHE=str(tmp_path))
    while not list(tmp_path.glob("stores/*.partial/manifest.json")) and killed.process.is_alive():
        time.sleep(0.01)
    killed.process.kill()
    assert killed.ended() == -signal.SIGKILL
    (partial,) = tmp_path.glob("stores/*.partial")
    with (partial / "tokens.bin").open("ab") as file:
        file.write(b"half a batch")

    monkeypatch.setattr(build_module, "BATCH_CHARACTERS", 2000)
    monkeypatch.setenv("LIT_PI_CACHE", str(tmp_path))
    continued = open_store(Numbers(), "train", load_tokenizer("bytes"))
    monkeypatch.setenv("LIT_PI_CACHE", str(tmp_path / "other"))
    assert files(continued) == files(open_store(Numbers(), "train", load_tokenizer("bytes")))
    assert not list(tmp_path.glob("stores/*.partial"))


def test_of_two_processes_one_builds(tmp_path: Path) -> None:
    both = [start(build_slowly, folder=tmp_path, LIT_PI_CACHE=str(tmp_path)) for _ in range(2)]
    assert [started.ended() for started in both] == [0, 0]
    (store,) = (path for path in tmp_path.glob("stores/*") if path.is_dir())
    assert len(TokenStore(store)) == 293


def test_a_full_disk_is_told_and_what_was_done_is_kept(tmp_path: Path, texts: Path, tiny: list[str]) -> None:
    words = ["fit", *tiny, "--trainer.max_steps=1", "--trainer.default_root_dir=run"]
    cache = str(tmp_path / "cache")
    full = start(on_a_full_disk, words, folder=tmp_path, LIT_PI_CACHE=cache)
    assert full.ended() == 2
    said = full.output.read_text()
    assert "Traceback" not in said
    assert "lit-pi: error: the disk is full at" in said and "set LIT_PI_CACHE" in said
    assert start(command_lines, [words], folder=tmp_path, LIT_PI_CACHE=cache).ended() == 0


@pytest.mark.usefixtures("store_cache")
def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(UserError, match="there are no documents in split 'train' of text_files"):
        open_store(TextFiles(train=str(tmp_path / "empty.txt")), "train", load_tokenizer("bytes"))


@pytest.mark.usefixtures("store_cache")
def test_a_damaged_store_is_refused() -> None:
    store = open_store(Numbers(), "train", load_tokenizer("bytes"))
    with (store.directory / "tokens.bin").open("r+b") as file:
        file.truncate(10)
    with pytest.raises(UserError, match=r"tokens\.bin is damaged"):
        open_store(Numbers(), "train", load_tokenizer("bytes"))
