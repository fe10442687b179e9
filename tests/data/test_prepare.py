"""Stores ahead of time: the manifest adds up, a damaged file is found, a tokenizer of one's own works."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from lit_pi.data.corpora import TextFiles
from lit_pi.data.prepare import prepare
from lit_pi.data.store import TokenStore
from lit_pi.data.train_tokenizer import train_tokenizer
from lit_pi.datamodules import LongContextData
from lit_pi.errors import UserError

TEXT = "The pass key is 12345. Ünïcödé – 🙂\n\n\tindented   text\r\n" * 20


@pytest.fixture
def corpus(tmp_path: Path) -> TextFiles:
    sources = {}
    for name in ("one", "two"):
        path = tmp_path / f"{name}.jsonl"
        lines = [name + TEXT, "", f"short{name}", name + TEXT * 3]
        path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
        sources[name] = str(path)
    return TextFiles(train=sources, min_bytes=5)


def test_the_manifest_adds_up_and_is_shown(
    corpus: TextFiles, store_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(corpus)
    (directory,) = store_cache.glob("stores/text_files-train-????????????????")
    manifest = TokenStore(directory).manifest
    documents, sources = manifest["documents"], manifest["sources"]
    assert documents == {"read": 8, "kept": 6, "dropped": {"shorter than 5 bytes": 2}, "cut": {}, "duplicates": 0}
    assert sum(source["documents"] for source in sources.values()) == documents["kept"]
    assert sum(source["tokens"] for source in sources.values()) == manifest["tokens"] == manifest["bytes"]
    assert manifest["bytes"] == 2 * (4 * len(TEXT.encode()) + 5 + 3 * len("one"))
    said = capsys.readouterr().out
    assert "from one (50.0% of tokens)" in said and "left out: shorter than 5 bytes" in said
    assert (directory / "lengths.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["tokens.bin", "sources.bin", "ids.bin", "token_offsets.bin"])
def test_verify_finds_one_changed_byte(name: str, corpus: TextFiles, store_cache: Path) -> None:
    with pytest.raises(UserError, match=r"there is no store .* run the same without --verify"):
        prepare(corpus, verify=True)
    prepare(corpus)
    prepare(corpus, verify=True)
    (directory,) = store_cache.glob("stores/text_files-train-????????????????")
    content = bytearray((directory / name).read_bytes())
    content[3] ^= 1
    (directory / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} is damaged.* by its checksum: delete"):
        prepare(corpus, verify=True)


@pytest.mark.parametrize("split_digits", [True, False])
def test_a_tokenizer_of_ones_own_gives_text_back(
    split_digits: bool, corpus: TextFiles, store_cache: Path, tmp_path: Path
) -> None:
    train_tokenizer(corpus, tmp_path / "tok", vocabulary_size=290, split_digits=split_digits)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tok")
    assert len(tokenizer) == 290
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1)
    for text in (TEXT, "unseen ß漢字 <s>\x00", "a  b\n\n\n c"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)) == text
    assert (len(tokenizer.tokenize("12345")) == 5) == split_digits
    prepare(corpus, str(tmp_path / "tok"))
    with pytest.raises(UserError, match="already holds a tokenizer"):
        train_tokenizer(corpus, tmp_path / "tok")
    with pytest.raises(UserError, match="vocabulary_size of train_tokenizer is 100: it must be 258 or more"):
        train_tokenizer(corpus, tmp_path / "other", vocabulary_size=100)


def test_weights_name_sources_of_the_store(corpus: TextFiles) -> None:
    data = LongContextData(TextFiles(train=corpus.files["train"], weights={"one": 1, "three": 1}), context_length=64)
    with pytest.raises(UserError, match=r"weights name the source 'three': the corpus has one, two"):
        data.setup("fit")
    data = LongContextData(TextFiles(train=corpus.files["train"], weights={"two": 1}), context_length=64)
    data.setup("fit")
    assert list(data.sequences) == ["two"]
    assert data.sequences["two"].accounting().documents == 3
