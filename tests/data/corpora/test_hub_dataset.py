"""What the `datasets` library reads becomes the tokens that `TextFiles` makes of the same documents."""

import gzip
import json
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from launched import start
from numbers_corpus import build_dataset_slowly

from lit_pi import hub
from lit_pi.cli import LitPiCLI
from lit_pi.data import build
from lit_pi.data.build import open_store
from lit_pi.data.corpora import Document, HubDataset, TextFiles, dataset_rows
from lit_pi.data.corpora.dataset_rows import DatasetAddress
from lit_pi.data.store import StoreWriter, TokenStore
from lit_pi.data.tokenizer import load_tokenizer
from lit_pi.errors import UserError

TEXTS = ["one", "zwei – drei", "four\nfive\n", "one", "🙂" * 40, "", *(f"text {n} " * n for n in range(1, 40))]


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "arrow cache"))
    datasets.disable_progress_bars()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The same documents in every form."""
    data = datasets.Dataset.from_dict({"text": TEXTS, "n": list(range(len(TEXTS)))})
    data.save_to_disk(tmp_path / "arrow")
    datasets.DatasetDict(train=data, test=data.select([1, 2])).save_to_disk(tmp_path / "splits")
    data.to_parquet(tmp_path / "rows.parquet")
    data.to_json(tmp_path / "rows.jsonl")
    (tmp_path / "rows.json").write_text(json.dumps(data.to_list()))
    (tmp_path / "texts").mkdir()
    for number, text in enumerate(TEXTS):
        (tmp_path / "texts" / f"{number:02}.txt").write_bytes(text.encode())
    return tmp_path


FORMS: dict[str, dict[str, Any]] = {
    "arrow": {"path": "arrow"},
    "dataset dict": {"path": "splits"},
    "parquet": {"path": "parquet", "data_files": "rows.parquet"},
    "json lines": {"path": "json", "data_files": ["rows.jsonl"]},
    "json list": {"path": "json", "data_files": {"train": "rows.json"}},
    "text": {"path": "text", "data_files": "texts/*.txt"},
    "folder of text": {"path": "texts"},
}
"""Options of `HubDataset` in the folder of `saved`."""


def content(store: TokenStore) -> dict[str, bytes]:
    names = ("tokens", "token_offsets", "document_bytes", "hashes")
    return {name: (store.directory / f"{name}.bin").read_bytes() for name in names}


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.usefixtures("store_cache")
def test_the_store_is_that_of_text_files(
    form: str, streaming: bool, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved)
    expected = open_store(TextFiles(train="texts"), "train", load_tokenizer("bytes"))
    corpus = HubDataset(**FORMS[form], streaming=streaming)
    store = open_store(corpus, "train", load_tokenizer("bytes"))
    assert content(store) == content(expected)
    dropped = store.manifest["documents"]["dropped"]
    assert dropped == expected.manifest["documents"]["dropped"] == {"duplicate": 1, "empty": 1}
    copied = list((saved / "arrow cache").rglob("*.arrow"))
    assert bool(copied) == (not streaming and "path" in FORMS[form] and form not in ("arrow", "dataset dict"))
    # Whether it is streamed says nothing of the documents.
    assert corpus.fingerprint("train") == HubDataset(**FORMS[form], streaming=not streaming).fingerprint("train")


def test_the_fingerprint_follows_the_dataset(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved)
    before = {form: HubDataset(**options).fingerprint("train") for form, options in FORMS.items()}
    own = json.loads(Path("arrow/state.json").read_text())["_fingerprint"]
    assert own and before["arrow"]["dataset"]["saved"] == {"state.json": own}
    changed = datasets.Dataset.from_dict({"text": ["other"]})
    for name in ("arrow", "splits/train"):
        changed.save_to_disk(name)
    changed.to_parquet("rows.parquet")
    for name in ("rows.jsonl", "rows.json", "texts/00.txt"):
        Path(name).write_text('[{"text": "other"}]')
    for form, options in FORMS.items():
        assert HubDataset(**options).fingerprint("train") != before[form]


def test_splits_are_named(saved: Path) -> None:
    def texts(split: Any, asked: Any, **options: Any) -> list[str]:
        corpus = HubDataset(f"{saved}/splits", split=split, **options)
        return [item.text for item in corpus.documents(asked) if isinstance(item, Document)]

    assert texts(None, "test") == texts("test", "train") == texts({"validation": "test"}, "validation") == TEXTS[1:3]
    held_out = [set(texts(None, split, held_out=0.2)) for split in ("train", "validation", "test")]
    assert set.union(*held_out) == set(TEXTS) and sum(map(len, held_out)) == len(set(TEXTS))
    with pytest.raises(UserError, match=r"has no split 'validation': name one of train, test in `split`"):
        texts(None, "validation")
    part = HubDataset("json", split="train[:2]", data_files=f"{saved}/rows.jsonl", streaming=False)
    assert [item.id for item in part.documents("test")] == ["train[:2]:1", "train[:2]:2"]
    with pytest.raises(UserError, match=r"Bad split: train\[:2\].*: check `path`, `name`, `split` and `data_files`"):
        list(HubDataset("json", split="train[:2]", data_files=f"{saved}/rows.jsonl").documents("test"))


def test_mistakes_are_told(saved: Path, tmp_path: Path) -> None:
    for options, said in (
        ({"path": f"{saved}/arrow", "text_field": "body"}, "has no column 'body': its columns are text, n"),
        ({"path": f"{saved}/arrow", "text_field": "n"}, "row 1, holds int in 'n', not a string"),
        ({"path": f"{saved}/nowhere"}, "cannot read .*nowhere, train .*: check `path`"),
        ({"path": "parquet", "data_files": f"{saved}/rows.jsonl"}, "cannot read parquet, train .*: check `path`"),
    ):
        with pytest.raises(UserError, match=said):
            list(HubDataset(**options).documents("train"))
    with pytest.raises(UserError, match="no files are named: name them in `data_files`"):
        HubDataset("json")
    nulls = datasets.Dataset.from_dict({"text": ["a", None]})
    nulls.save_to_disk(tmp_path / "nulls")
    assert len(list(HubDataset(f"{tmp_path}/nulls", nulls="drop").documents("train"))) == 2


@pytest.mark.parametrize("streaming", [True, False])
def test_without_network_the_files_to_bring_are_named_at_once(streaming: bool) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=r"cannot read hf://datasets/me/books.*: bring its files .*`data_files`"):
        list(HubDataset("me/books", streaming=streaming).documents("train"))
    assert time.monotonic() - started < 5  # not a speed: how long a person waits for the sentence


def test_files_of_a_repository_with_a_loading_script_are_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (saved / "books.py").write_text("raise AssertionError('it was run')")

    def url(address: DatasetAddress, file: str) -> str:
        assert (address.path, address.revision) == ("me/books", "v1")
        return str(saved / file)

    monkeypatch.setattr(hub.HfApi, "dataset_info", lambda *_, **options: SimpleNamespace(sha="c0ffee", siblings=[]))
    monkeypatch.setattr(dataset_rows, "hub_url", url)
    for data_files in ("rows.jsonl", ["rows.parquet"], {"train": ["texts/*.txt"]}):
        corpus = HubDataset("me/books", revision="v1", data_files=data_files)
        assert [item.text for item in corpus.documents("train")] == TEXTS
    (saved / "notes.md.gz").write_bytes(gzip.compress("é\n".encode()))
    (notes,) = HubDataset("me/books", revision="v1", data_files="notes.md.gz").documents("train")
    assert notes == Document("train:1", "é\n")
    with pytest.raises(UserError, match=r"books\.rs has an ending that cannot be read: supported are \.json"):
        list(HubDataset("me/books", revision="v1", data_files="books.rs").documents("train"))


def test_the_hub_is_asked_for_configuration_and_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Builder:
        config = SimpleNamespace()

        def as_streaming_dataset(self, split: str) -> datasets.IterableDataset:
            asked.append(split)
            return datasets.Dataset.from_dict({"text": ["a", "b"]}).to_iterable_dataset()

    def load(path: str, **options: Any) -> Builder:
        asked.append((path, options))
        return Builder()

    monkeypatch.setattr(hub.HfApi, "dataset_info", lambda *_, **options: SimpleNamespace(sha="c0ffee", siblings=[]))
    monkeypatch.setattr(datasets, "load_dataset_builder", load)
    corpus = HubDataset("me/books", "en", {"test": "dev"}, revision="abc")
    assert [item.text for item in corpus.documents("test")] == ["a", "b"]
    assert asked == [("me/books", {"name": "en", "revision": "abc", "data_files": None}), "dev"]


@pytest.mark.long
def test_a_killed_build_goes_on_and_gives_the_same_bytes(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets.Dataset.from_dict({"text": TEXTS * 2 + [f"é{n} " * (n % 50) for n in range(300)]}).save_to_disk(
        path := str(tmp_path / "many")
    )
    killed = start(build_dataset_slowly, path, folder=tmp_path, LIT_PI_CACHE=str(tmp_path))
    while not list(tmp_path.glob("stores/*.partial/manifest.json")) and killed.process.is_alive():
        time.sleep(0.01)
    killed.process.kill()
    assert killed.ended() == -signal.SIGKILL
    monkeypatch.setattr(build, "BATCH_CHARACTERS", 2000)
    stores = []
    for cache in (tmp_path, tmp_path / "other"):
        monkeypatch.setenv("LIT_PI_CACHE", str(cache))
        stores.append(open_store(HubDataset(path), "train", load_tokenizer("bytes")))
    assert content(stores[0]) == content(stores[1])
    assert stores[0].manifest["documents"] == stores[1].manifest["documents"]


@pytest.mark.usefixtures("store_cache")
def test_a_build_goes_on_only_at_the_commit_where_it_began(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def at_commit(sha: str) -> TokenStore:
        answer = SimpleNamespace(sha=sha, siblings=[])
        monkeypatch.setattr(hub.HfApi, "dataset_info", lambda *_, **options: answer)
        return open_store(HubDataset("me/books", data_files="rows.jsonl"), "train", load_tokenizer("bytes"))

    monkeypatch.setattr(dataset_rows, "hub_url", lambda address, file: str(saved / file))

    def interrupted(writer: StoreWriter) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(StoreWriter, "finish", interrupted)
        at_commit("one")
    (saved / "rows.jsonl").write_text('{"text": "changed"}')
    store = at_commit("two")
    assert bytes(store.tokens[:].tolist()) == b"changed"
    assert store.manifest["origin"] == {"hf://datasets/me/books": "two"}


@pytest.mark.filterwarnings("ignore")
def test_a_run_trains_from_it(tiny: list[str], saved: Path, tmp_path: Path) -> None:
    words = [word for word in tiny if not word.startswith("--data.train")]
    words += ["--data.train=HubDataset", f"--data.train.path={saved}/splits", "--trainer.limit_val_batches=0"]
    LitPiCLI(["fit", *words, "--trainer.max_steps=2", f"--trainer.default_root_dir={tmp_path}/run"])
    assert list((tmp_path / "run" / "checkpoints").iterdir())
