"""Formats and fields: compressed and nested ones, and chats through the tokenizer's template."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from transformers import PreTrainedTokenizerFast

from lit_pi.data.build import open_store
from lit_pi.data.corpora import Document, Dropped, TextFiles
from lit_pi.data.prompts import Prompts
from lit_pi.data.tokenizer import load_tokenizer
from lit_pi.errors import UserError

TEXTS = ["one", "zwei – drei", "four\nfive\r\n"]
RECORDS = [{"meta": {"text": text, "n": number}} for number, text in enumerate(TEXTS)]
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"
CHATS = [
    [{"role": "user", "content": "the times"}, {"role": "assistant", "content": "the best"}],
    [{"role": "user", "content": "foolishness", "name": "x"}],
]


def texts(corpus: TextFiles) -> list[str]:
    return [item.text for item in corpus.documents("train") if isinstance(item, Document)]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_format_is_read_under_every_compression(compression: str, tmp_path: Path) -> None:
    compress = COMPRESSIONS[compression]
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS)
    contents = {"list.json": json.dumps(RECORDS, indent=1), "lines.json": lines, "lines.jsonl": lines}
    for name, content in contents.items():
        (tmp_path / f"{name}{compression}").write_bytes(compress(content.encode()))
        found = TextFiles(train=f"{tmp_path}/{name}{compression}", text_field="meta.text")
        assert texts(found) == TEXTS
    (tmp_path / f"one.json{compression}").write_bytes(compress(json.dumps(RECORDS[0]).encode()))
    (one,) = TextFiles(train=f"{tmp_path}/one.json{compression}", text_field="meta.text").documents("train")
    assert one == Document(f"one.json{compression}", "one")
    (tmp_path / f"plain.txt{compression}").write_bytes(compress(TEXTS[2].encode()))
    for field in ("text", "meta.text"):
        assert texts(TextFiles(train=f"{tmp_path}/plain.txt{compression}", text_field=field)) == [TEXTS[2]]
    if compression:
        (tmp_path / f"cut.txt{compression}").write_bytes(compress(TEXTS[1].encode() * 99)[:-4])
        with pytest.raises(UserError, match=r"cannot read .*cut\.txt"):
            texts(TextFiles(train=f"{tmp_path}/cut.txt{compression}"))


def test_a_nested_column_is_read(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([*RECORDS, {"meta": None}]), tmp_path / "r.parquet")
    corpus = TextFiles(train=f"{tmp_path}/r.parquet", text_field="meta.text", where={"meta.n": [0, 1]}, nulls="drop")
    assert texts(corpus) == TEXTS[:2]


def test_null_texts_stop_or_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"text": "a"}\n{"text": null}\n{"body": "b"}\n')
    with pytest.raises(UserError, match=r"line 2, holds null in 'text', not a string: set nulls: drop"):
        texts(TextFiles(train=f"{tmp_path}/r.jsonl"))
    with pytest.raises(UserError, match=r"line 3, has no field 'text'"):
        texts(TextFiles(train=f"{tmp_path}/r.jsonl", nulls="drop"))


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.usefixtures("store_cache")
def test_chats_are_written_by_the_template(
    ending: str, tmp_path: Path, words_tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [{"messages": messages} for messages in CHATS]
    if ending == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "c.parquet")
    else:
        (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = TextFiles(train=f"{tmp_path}/c.{ending}", text_field="messages")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words_tokenizer.backend_tokenizer, bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE
    )
    store = open_store(corpus, "train", tokenizer)
    for index, messages in enumerate(CHATS):
        ids = tokenizer.apply_chat_template(messages, return_dict=False, truncation=False)
        assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
        assert store.document(index).tolist() == ids[1:-1]  # sequences put those two around it
    tokenizer.chat_template = "{{ bos_token }}"
    with pytest.raises(UserError, match="there are no documents"):  # another template, another store
        open_store(corpus, "train", tokenizer)
    with pytest.raises(UserError, match=r"is a chat, and the tokenizer bytes has no chat template"):
        open_store(corpus, "train", load_tokenizer("bytes"))
    with pytest.raises(UserError, match=r"the prompt .*1 is a list of messages"):
        Prompts(f"{tmp_path}/c.{ending}", text_field="messages").prepare(tokenizer)
    if ending == "jsonl":
        hashes = {item.text for item in corpus.documents("train")}
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "c.parquet")
        assert {
            item.text for item in TextFiles(train=f"{tmp_path}/c.parquet", text_field="messages").documents("train")
        } == hashes


def test_bad_options_and_numbers_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="encodings name 'rot13', which is no encoding of text"):
        TextFiles(train="x", encodings=["rot13"])
    with pytest.raises(UserError, match="min_bytes of TextFiles is -1"):
        TextFiles(train="x", min_bytes=-1)
    for name in ("r.jsonl", "r.json"):
        (tmp_path / name).write_text('{"text": "a", "n": ' + "1" * 6000 + "}")
        with pytest.raises(UserError, match=r"not JSON .*4300"):
            texts(TextFiles(train=f"{tmp_path}/{name}"))
    assert not any(isinstance(item, Dropped) for item in TextFiles(train=f"{__file__}").documents("train"))
