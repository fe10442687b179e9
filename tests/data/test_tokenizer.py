"""Tokenizers by name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from lit_pi.data.tokenizer import load_tokenizer, tokenizer_fingerprint
from lit_pi.errors import UserError


@pytest.mark.parametrize("text", ["plain", "naïve café — 漢字 🙂", "tabs\tand\r\nlines\0", "<s> is no token here </s>"])
def test_the_embedded_tokenizer_is_the_bytes_of_utf_8(text: str) -> None:
    tokenizer = load_tokenizer("bytes")
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert ids == list(text.encode())
    assert tokenizer.decode(ids) == text
    assert (len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id) == (258, 256, 257)


def test_a_directory_or_its_tokenizer_json_is_a_name(tmp_path: Path, words_tokenizer: PreTrainedTokenizerFast) -> None:
    words_tokenizer.save_pretrained(tmp_path)
    for name in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = load_tokenizer(str(name))
        assert loaded.get_vocab() == words_tokenizer.get_vocab()
        assert tokenizer_fingerprint(loaded) == tokenizer_fingerprint(words_tokenizer)


def test_using_a_tokenizer_does_not_change_its_fingerprint(words_tokenizer: PreTrainedTokenizerFast) -> None:
    before = tokenizer_fingerprint(words_tokenizer)
    words_tokenizer("a longer text than that", truncation=True, max_length=3)
    assert tokenizer_fingerprint(words_tokenizer) == before != tokenizer_fingerprint(load_tokenizer("bytes"))


@pytest.mark.parametrize("name", ["./nowhere", "nobody/no-such-model", "nowhere/tokenizer.json"])
def test_a_missing_tokenizer_is_named(name: str) -> None:
    with pytest.raises(UserError, match=name):
        load_tokenizer(name)


@pytest.mark.parametrize("content", ["{}", "[]", "", '{"model": 3}'])
def test_a_damaged_tokenizer_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=f"cannot load the tokenizer {tmp_path}"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_what_git_lfs_has_not_fetched_is_called_that(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(UserError, match=f"{name} is a Git LFS pointer .* `git lfs pull`"):
        load_tokenizer(str(tmp_path))


UNANSWERED = """
import time
from lit_pi.data.tokenizer import load_tokenizer
from lit_pi.models import Pretrained
for load in (load_tokenizer, lambda name: Pretrained(name).build()):
    start = time.monotonic()
    try:
        load("me/mine")
    except ValueError as error:
        print(type(error).__name__, time.monotonic() - start, error)
"""


def test_a_hub_that_does_not_answer_is_told_at_once() -> None:
    away = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:1"}
    done = subprocess.run([sys.executable, "-c", UNANSWERED], env=away, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        kind, seconds, said = line.split(" ", 2)
        assert kind == "UserError" and "me/mine" in said
        assert float(seconds) < 5  # not a speed: how long a person waits for the sentence


@pytest.mark.parametrize("content", ["{}", "[]", "5", "{", '{"model": {"type": "BPE"}}'])
def test_a_tokenizer_json_of_something_else_is_called_that(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(
        UserError, match=r"cannot load the tokenizer .* \(its tokenizer.json is damaged: .* line 1 column"
    ):
        load_tokenizer(str(tmp_path))
