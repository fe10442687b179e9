"""Local files of every format become the documents that were put into them."""

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from lit_pi.data.corpora import TextFiles
from lit_pi.data.corpora.corpus import Document, Dropped
from lit_pi.errors import UserError

TEXTS = ["one", "zwei – drei", "four\nfive\n", "🙂" * 40]


def write_records(folder: Path, field: str = "text") -> None:
    lines = "".join(json.dumps({field: text, "other": 1}) + "\n" for text in TEXTS).encode()
    (folder / "plain.jsonl").write_bytes(lines)
    (folder / "zipped.jsonl.gz").write_bytes(gzip.compress(lines))
    with pyarrow.output_stream(str(folder / "packed.jsonl.zst"), compression="zstd") as file:
        file.write(lines)
    pyarrow.parquet.write_table(pyarrow.table({field: TEXTS, "other": [1] * 4}), folder / "table.parquet")


@pytest.mark.parametrize("file", ["plain.jsonl", "zipped.jsonl.gz", "packed.jsonl.zst", "table.parquet"])
@pytest.mark.parametrize("field", ["text", "body"])
def test_records_are_documents(file: str, field: str, tmp_path: Path) -> None:
    write_records(tmp_path, field)
    found = list(TextFiles(train=str(tmp_path / file), text_field=field).documents("train"))
    assert found == [Document(f"{file}:{number}", text) for number, text in enumerate(TEXTS, start=1)]


@pytest.mark.parametrize("ending", ["txt", "md", "py", "tex"])
def test_text_files_are_documents(ending: str, tmp_path: Path) -> None:
    for number, text in enumerate(TEXTS):
        (tmp_path / f"{number}.{ending}").write_bytes(text.encode())
    found = list(TextFiles(test=[f"{tmp_path}/*.{ending}"]).documents("test"))
    assert found == [Document(f"{number}.{ending}", text) for number, text in enumerate(TEXTS)]


def test_folders_and_globs_find_files_below_and_skip_what_is_no_text(tmp_path: Path) -> None:
    for name in ("a/b/deep.txt", "a/top.md", "picture.png", ".hidden.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found = TextFiles(train=str(tmp_path)).documents("train")
    assert [item.id for item in found if isinstance(item, Document)] == ["a/b/deep.txt", "a/top.md"]
    found = TextFiles(train=[f"{tmp_path}/**/*.txt", f"{tmp_path}/a/*.md"]).documents("train")
    assert [document.id for document in found] == ["a/b/deep.txt", "top.md"]


def test_each_split_has_its_own_files(tmp_path: Path) -> None:
    write_records(tmp_path)
    corpus = TextFiles(train=str(tmp_path / "plain.jsonl"))
    assert len(list(corpus.documents("train"))) == 4
    with pytest.raises(UserError, match="no `validation` files"):
        list(corpus.documents("validation"))


def test_the_fingerprint_follows_the_files(tmp_path: Path) -> None:
    write_records(tmp_path)
    corpus = TextFiles(train=str(tmp_path))
    before = corpus.fingerprint("train")
    assert corpus.fingerprint("train") == before
    (tmp_path / "new.txt").write_text("new")
    assert corpus.fingerprint("train") != before
    assert TextFiles(train=str(tmp_path / "plain.jsonl"), text_field="other").fingerprint("train") != before


def test_a_file_that_is_not_utf_8_is_named_and_the_others_are_used_if_allowed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    (tmp_path / "b.txt").write_text("fine")
    (tmp_path / "c.jsonl").write_bytes(b'{"text": "fine"}\n{"text": "caf\xe9"}\n{"text": "\\ud83d"}\n')
    with pytest.raises(UserError, match=r"a\.txt is not UTF-8 at byte 3: set undecodable: drop"):
        list(TextFiles(train=str(tmp_path)).documents("train"))
    with pytest.warns(UserWarning, match="left out") as warned:
        found = list(TextFiles(train=str(tmp_path), undecodable="drop").documents("train"))
    assert len(warned) == 3
    assert [item.id for item in found if isinstance(item, Document)] == ["b.txt", "c.jsonl:1"]
    assert [item.id for item in found if isinstance(item, Dropped)] == ["a.txt", "c.jsonl:2", "c.jsonl:3"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "cut', r"bad\.jsonl, line 2, is not JSON"),
        ('{"body": "x"}', r"bad\.jsonl, line 2, has no field 'text'"),
        ('{"text": 7}', r"bad\.jsonl, line 2, holds int in 'text'"),
        ("[1]", r"bad\.jsonl, line 2, has no field"),
    ],
)
def test_a_bad_line_is_named(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(f'{{"text": "fine"}}\n{line}\n')
    with pytest.raises(UserError, match=said):
        list(TextFiles(train=str(tmp_path)).documents("train"))


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    write_records(tmp_path)
    for name in ("zipped.jsonl.gz", "packed.jsonl.zst", "table.parquet"):
        cut = (tmp_path / name).read_bytes()[:-10]
        (tmp_path / name).write_bytes(cut)
        with pytest.raises(UserError, match=f"cannot read .*{name}"):
            list(TextFiles(train=str(tmp_path / name)).documents("train"))
    with pytest.raises(UserError, match=r"no files match '.*nothing\*'"):
        list(TextFiles(train=f"{tmp_path}/nothing*").documents("train"))
    (tmp_path / "picture.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"picture\.png has an ending that cannot be read"):
        list(TextFiles(train=f"{tmp_path}/*.png").documents("train"))
    with pytest.raises(UserError, match="has no column 'body': its columns are text, other"):
        write_records(tmp_path)
        list(TextFiles(train=str(tmp_path / "table.parquet"), text_field="body").documents("train"))
