"""No spelling, link or copy of a document puts it on both sides of a split, or into a store twice."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_pi.data.build import open_store
from lit_pi.data.corpora import Corpus, Document, Dropped, TextFiles
from lit_pi.data.corpora.corpus import Split, content_hash, split_by_hash
from lit_pi.data.tokenizer import load_tokenizer

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FOLDERS = ["a", "a/b", "c", "c/d"]


def texts(corpus: Corpus, split: Split) -> list[str]:
    return [item.text for item in corpus.documents(split) if isinstance(item, Document)]


links = st.lists(st.tuples(st.sampled_from(FOLDERS), st.sampled_from([".", *FOLDERS, "a/0.txt", "gone"])), max_size=8)
copies = st.lists(st.tuples(st.integers(0, 11), st.sampled_from(FOLDERS)), max_size=4)
patterns = ["{}", "{}/**", "{}/**/*.txt", "{}/*/**/*.txt", "{}/a/../**/*.txt", "{}/../{name}"]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(links=links, copies=copies, trained=st.sampled_from(patterns), tested=st.sampled_from(patterns))
def test_over_random_trees_of_links(
    links: list[tuple[str, str]], copies: list[tuple[int, str]], trained: str, tested: str, tmp_path: Path
) -> None:
    root = tmp_path / "tree"
    shutil.rmtree(root, ignore_errors=True)
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    for number in range(12):
        (root / FOLDERS[number % 4] / f"{number}.txt").write_text(f"text {number}")
    for place, (folder, target) in enumerate(links):
        # In some orders of names the link comes before what it leads to.
        link = root / folder / f"{'aZz'[place % 3]}{place}{'.txt' if place % 5 == 4 else ''}"
        link.symlink_to(root / target)
    for place, (number, folder) in enumerate(copies):
        shutil.copy(root / FOLDERS[number % 4] / f"{number}.txt", root / folder / f"copy{place}.txt")

    def corpus(pattern: str, held_out: float) -> TextFiles:
        return TextFiles(train=pattern.format(root, name="tree"), held_out=held_out)

    assert not set(texts(corpus(trained, 0.3), "train")) & set(texts(corpus(tested, 0.3), "test"))
    every = texts(corpus(trained, 0.0), "train")
    assert len(every) <= 12 + len(copies)  # each file once, whatever leads to it
    assert set(every) == {f"text {number}" for number in range(12)}


def test_a_folder_of_many_circles_is_read_at_once(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("real")
    for number in range(20):  # 20 to the power of 40 paths
        (tmp_path / f"circle{number}").symlink_to(".")
    assert [item.id for item in TextFiles(train=str(tmp_path)).documents("train")] == ["real.txt"]


def test_a_file_is_named_by_the_path_with_the_fewest_links(tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "x.txt").write_text("x")
    (tmp_path / "alias").symlink_to("books")
    assert [item.id for item in TextFiles(train=str(tmp_path)).documents("train")] == ["books/x.txt"]
    assert [item.id for item in TextFiles(train=f"{tmp_path}/alias/*.txt").documents("train")] == ["x.txt"]


@pytest.mark.usefixtures("store_cache")
@pytest.mark.parametrize("duplicates", ["drop", "keep"])
def test_copies_are_counted_and_kept_once_if_not_all_are_wanted(duplicates: str, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for number in range(30):
        (tmp_path / "texts" / f"{number:02}.txt").write_text(f"text {number % 10}")
    store = open_store(TextFiles(train=f"{tmp_path}/texts", duplicates=duplicates), "train", load_tokenizer("bytes"))
    documents = store.manifest["documents"]
    if duplicates == "drop":
        assert (documents["kept"], documents["dropped"], documents["duplicates"]) == (10, {"duplicate": 20}, 0)
    else:
        assert (documents["kept"], documents["dropped"], documents["duplicates"]) == (30, {}, 20)


@pytest.mark.usefixtures("store_cache")
def test_a_store_keeps_the_hash_that_made_the_split(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for number in range(50):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"text {number}")
    corpus, found = TextFiles(train=f"{tmp_path}/texts", held_out=0.2), []
    for split in SPLITS:
        store = open_store(corpus, split, load_tokenizer("bytes"))
        for index, row in enumerate(store.hashes):
            document = Document("", bytes(store.document(index).tolist()).decode())
            assert content_hash(document) == row.tobytes()
            assert split_by_hash(row.tobytes(), 0.2) == split
            found.append(row.tobytes())
    assert len(set(found)) == 50


def test_all_that_is_not_read_is_counted_with_its_reason(tmp_path: Path) -> None:
    for name in ("a.txt", "b.csv", "c.html", "d", ".hidden.txt", "e/f.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "g.txt").symlink_to("nowhere")
    (tmp_path / "h.txt").write_bytes(b"caf\xe9")
    (tmp_path / "i.jsonl").write_text('{"text": "i"}\n\n{"text": null}\nnull\n{"text": ""}\n')
    corpus = TextFiles(train=str(tmp_path), undecodable="drop", nulls="drop")
    with pytest.warns(UserWarning, match="left out"):
        found = list(corpus.documents("train"))
    assert [item.id for item in found if isinstance(item, Document)] == ["a.txt", "i.jsonl:1", "i.jsonl:5"]
    reasons = {item.id: item.reason for item in found if isinstance(item, Dropped)}
    assert reasons == {
        "h.txt": "not UTF-8", "i.jsonl:2": "blank line", "i.jsonl:3": "null", "i.jsonl:4": "null",
        "b.csv": "ending .csv", "c.html": "ending .html", "d": "no ending", "e/f.csv": "ending .csv",
        "g.txt": "broken link",
    }  # fmt: skip
