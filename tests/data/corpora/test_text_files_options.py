"""What a person has: mixed encodings, metadata, sources, and splits that nobody made."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from lit_pi.data.corpora import Document, Dropped, TextFiles
from lit_pi.errors import UserError

RECORDS = [
    {"text": "a" * 10, "meta": {"source": "books", "year": 1900}, "lang": "en"},
    {"text": "b" * 20, "meta": {"source": "math", "year": 1900}, "lang": "en"},
    {"text": "c" * 30, "meta": {"source": "math", "year": 1950}, "lang": "de"},
    {"text": "d" * 40, "lang": "en"},
]


@pytest.fixture(params=["jsonl", "parquet"])
def records(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "jsonl":
        (tmp_path / "r.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(RECORDS), tmp_path / "r.parquet")
    return str(tmp_path / f"r.{request.param}")


def letters(corpus: TextFiles, split: str = "train") -> str:
    return "".join(item.text[0] for item in corpus.documents(split) if isinstance(item, Document))


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ({"lang": "en"}, "abd"),
        ({"meta.source": ["math", "code"]}, "bc"),
        ({"meta.year": 1900, "meta.source": "math"}, "b"),
        ({"lang": "fr"}, ""),
    ],
)
def test_a_filter_keeps_what_it_says_and_counts_the_rest(where: dict, kept: str, records: str) -> None:
    corpus = TextFiles(train=records, where=where)
    assert letters(corpus) == kept
    dropped = [item for item in corpus.documents("train") if isinstance(item, Dropped)]
    assert len(dropped) == 4 - len(kept)
    assert {item.reason for item in dropped} <= {f"another {path}" for path in where}


def test_short_documents_are_counted(records: str) -> None:
    found = list(TextFiles(train=records, min_bytes=30).documents("train"))
    assert [isinstance(item, Document) for item in found] == [False, False, True, True]
    assert found[0].reason == "shorter than 30 bytes"


def test_sources_are_named_by_a_field_or_by_the_files(records: str, tmp_path: Path) -> None:
    by_field = TextFiles(train=records, source_field="meta.source").documents("train")
    assert [item.source for item in by_field] == ["books", "math", "math", "None"]
    for name in ("one/x.txt", "two/x.txt", "two/y.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    named = TextFiles(train={"1": f"{tmp_path}/one", "2": [f"{tmp_path}/two/x.txt", f"{tmp_path}/two/y.txt"]})
    assert [(item.source, item.text) for item in named.documents("train")] == [
        ("1", "one/x.txt"),
        ("2", "two/x.txt"),
        ("2", "two/y.txt"),
    ]


def test_encodings_are_tried_in_order_and_the_policy_for_others_is_the_users(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "b.txt").write_bytes("\ufeffcafé".encode("utf-16-le"))
    (tmp_path / "c.txt").write_bytes("café".encode())
    (tmp_path / "d.jsonl").write_bytes(b'{"text": "caf\xe9"}\n{"text": "x\\ud83dy"}\n')

    def texts(**options: object) -> list[str]:
        return [item.text for item in TextFiles(train=str(tmp_path), **options).documents("train")]

    assert texts(encodings=["utf-8", "cp1252"], undecodable="replace")[0] == "café"
    assert texts(encodings=["utf-16-le"], undecodable="replace")[1] == "café"
    assert texts(undecodable="replace") == [
        "caf\ufffd",
        "\ufffd\ufffdc\0a\0f\0\ufffd\0",
        "café",
        "caf\ufffd",
        "x\ufffdy",
    ]
    with pytest.raises(UserError, match=r"a\.txt is not UTF-8 at byte 3: .* name its encoding in `encodings`"):
        texts()
    with pytest.raises(UserError, match=r"a\.txt is not UTF-8 or ASCII at byte 3"):
        texts(encodings=["utf-8", "ascii"])


def test_a_hash_makes_splits_that_share_nothing_and_do_not_move(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"document {number}"}) for number in range(400)]
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    corpus = TextFiles(train=str(tmp_path), held_out=0.1)
    splits = {split: {item.text for item in corpus.documents(split)} for split in ("train", "validation", "test")}
    assert sorted(text for texts in splits.values() for text in texts) == sorted(f"document {n}" for n in range(400))
    assert sum(map(len, splits.values())) == 400
    assert 20 < len(splits["test"]) < 60 and 20 < len(splits["validation"]) < 60
    (tmp_path / "r.jsonl").write_text("\n".join([*lines, json.dumps({"text": "new"})]))
    for split, texts in splits.items():
        assert {item.text for item in corpus.documents(split)} - {"new"} == texts
    fingerprints = [TextFiles(train=str(tmp_path), held_out=share).fingerprint("train") for share in (0.1, 0.2, 0.0)]
    assert fingerprints[0] != fingerprints[1] != fingerprints[2]
    assert corpus.fingerprint("train") != corpus.fingerprint("test")


def test_nonsense_is_refused() -> None:
    for options, said in (
        ({"held_out": 0.5}, "held_out of TextFiles is 0.5"),
        ({"held_out": 0.1, "test": "x"}, "held_out stands beside files"),
        ({"weights": {"a": -1.0, "b": 2.0}}, "none may be negative"),
        ({"weights": {"a": 0.0}}, "one must be positive"),
    ):
        with pytest.raises(UserError, match=said):
            TextFiles(train="x", **options)
