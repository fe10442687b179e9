"""The corpora of the field: from local files in their format, from the hub, and without network."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest

from lit_pi import hub as hub_module
from lit_pi.data.corpora import (
    Corpus,
    Document,
    GovReportCorpus,
    PG19Corpus,
    PileCorpus,
    ProofPileCorpus,
    RedPajamaCorpus,
    TextFiles,
    dataset_rows,
    files,
)
from lit_pi.data.corpora.dataset_rows import DatasetAddress
from lit_pi.data.corpora.redpajama import SOURCES
from lit_pi.errors import UserError

CORPORA = {
    "pile": PileCorpus,
    "redpajama": RedPajamaCorpus,
    "pg19": PG19Corpus,
    "proof_pile": ProofPileCorpus,
    "gov_report": GovReportCorpus,
}
"""One row a corpus."""

COMPRESSIONS = {".zst": "zstd", ".gz": "gzip"}
RECORD = {
    "text": "a book",
    "report": "a report",
    "summary": "its summary",
    "meta": {"pile_set_name": "Books3", "config": "arxiv"},
}


@pytest.fixture(params=["jsonl", "jsonl.zst", "parquet"])
def local(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    path = tmp_path / f"file.{request.param}"
    if request.param == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([RECORD, RECORD]), path)
    else:
        compression = "zstd" if request.param.endswith("zst") else None
        with pyarrow.output_stream(str(path), compression=compression) as file:
            file.write((json.dumps(RECORD) + "\n").encode() * 2)
    return str(path)


@pytest.mark.parametrize("name", CORPORA)
def test_local_files_in_the_format_of_the_corpus_are_its_documents(name: str, local: str) -> None:
    corpus = CORPORA[name](train=local) if name == "redpajama" else CORPORA[name](train=local, test=local)
    assert corpus.name == name
    documents = [item for split in ("train", "test") for item in corpus.documents(split)]
    if name == "redpajama":  # a hash divides its two documents
        documents = [item for split in ("train", "validation", "test") for item in corpus.documents(split)] * 2
    assert [item.text for item in documents] == ["a report" if name == "gov_report" else "a book"] * 4
    assert {item.source for item in documents} == {"Books3" if name == "pile" else ""}
    json.dumps(corpus.fingerprint("train"))


def test_a_summary_is_learnt_after_its_report(local: str) -> None:
    (first, _) = GovReportCorpus(train=local, learn="summary").documents("train")
    assert first.text == " its summary"
    assert first.prompt.startswith("Read the following article and then summarize it.\na report\nNow summarize")
    assert first.prompt.endswith("Summary:")


@pytest.mark.parametrize("name", CORPORA)
def test_without_network_the_files_to_bring_are_named_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "snapshot_download", missing)
    started = time.monotonic()
    with pytest.raises(UserError, match=r"cannot read hf://.*: bring .*(JSON lines|Parquet).* `(text|report)`.*`train"):
        list(CORPORA[name]().documents("train"))
    assert time.monotonic() - started < 5  # not a speed: how long a person waits for the sentence
    json.dumps(CORPORA[name]().fingerprint("test"))  # a store that is there needs no network


def missing(*arguments: object, **options: object) -> str:
    raise FileNotFoundError("not in the cache")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the repository me/books on the hub."""
    repository = tmp_path / "repository"
    (repository / "data").mkdir(parents=True)
    for name in ("train-0.jsonl", "train-1.jsonl", "test-0.jsonl"):
        (repository / "data" / name).write_text(json.dumps({"text": name}) + "\n")
    (repository / "README.md").write_text("not a book")

    def info(_: object, name: str, revision: str, timeout: float) -> SimpleNamespace:
        assert (name, revision) == ("me/books", "refs/pr/1") and 0 < timeout < 5
        names = sorted(path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file())
        return SimpleNamespace(sha="c0ffee", siblings=[SimpleNamespace(rfilename=name) for name in names])

    def url(address: DatasetAddress, file: str) -> str:
        assert (address.path, address.revision) == ("me/books", "refs/pr/1")
        return str(repository / file)

    monkeypatch.setattr(hub_module.HfApi, "dataset_info", info)
    monkeypatch.setattr(dataset_rows, "hub_url", url)
    return tmp_path


def test_the_address_of_a_file_on_the_hub() -> None:
    address = DatasetAddress("me/books", revision="refs/pr/1")
    assert dataset_rows.hub_url(address, "data/*.jsonl") == "hf://datasets/me/books@refs/pr/1/data/*.jsonl"
    assert dataset_rows.hub_url(address._replace(revision=None), "x") == "hf://datasets/me/books@main/x"


def test_files_on_the_hub_are_streamed_one_by_one(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "hf_hub_download", lambda *_, **options: pytest.fail("copied to disk"))
    corpus: Corpus = TextFiles(train="hf://datasets/me/books@refs/pr/1/data/train-*.jsonl")
    documents = corpus.documents("train")
    assert next(documents) == Document("data/train-0.jsonl:1", "train-0.jsonl")
    assert [item.text for item in documents] == ["train-1.jsonl"]
    with pytest.raises(UserError, match=r"no files match .*nothing"):
        list(TextFiles(train="hf://datasets/me/books@refs/pr/1/nothing*").documents("train"))
    with pytest.raises(UserError, match="write hf://datasets/OWNER/NAME@REVISION/GLOB"):
        list(TextFiles(train="hf://me/books").documents("train"))


@pytest.mark.parametrize("name", CORPORA)
def test_every_corpus_streams_what_the_hub_holds(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def info(_: object, repository: str, revision: str, timeout: float) -> SimpleNamespace:
        wanted = [files.HUB_ADDRESS.fullmatch(pattern) for pattern in CORPORA[name]().fingerprint("train")["hub"]]
        names = {found["files"].replace("*", "00") for found in wanted if found["repository"] == repository}
        return SimpleNamespace(sha="c0ffee", siblings=[SimpleNamespace(rfilename=file) for file in names])

    def url(address: DatasetAddress, file: str) -> str:
        asked.append(f"{address}/{file}")
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist([RECORD, RECORD]), path)
        else:
            with pyarrow.output_stream(str(path), compression=COMPRESSIONS.get(path.suffix)) as output:
                output.write((json.dumps(RECORD) + "\n").encode() * 2)
        return str(path)

    monkeypatch.setattr(hub_module.HfApi, "dataset_info", info)
    monkeypatch.setattr(dataset_rows, "hub_url", url)
    documents = [item for item in CORPORA[name]().documents("train") if isinstance(item, Document)]
    text = "a report" if name == "gov_report" else "a book"
    assert [item.text for item in documents] == [text] * 2 * len(asked)
    assert asked and all(found.startswith("hf://datasets/") for found in asked)
    assert {item.source for item in documents} <= {"Books3", "", *SOURCES}


def test_files_fetched_before_are_read_without_network(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module.HfApi, "dataset_info", missing)
    monkeypatch.setattr(files, "snapshot_download", lambda *_, **options: str(hub / "repository"))
    found = TextFiles(train="hf://datasets/me/books@refs/pr/1/data/train-*.jsonl").documents("train")
    assert [item.text for item in found] == ["train-0.jsonl", "train-1.jsonl"]
