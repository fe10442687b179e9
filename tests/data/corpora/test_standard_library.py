"""The corpus that every machine has."""

import sysconfig
from pathlib import Path

from lit_pi.data.corpora import StandardLibrary
from lit_pi.data.corpora.corpus import Document, Split

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def test_every_source_is_in_one_split() -> None:
    root = Path(sysconfig.get_path("stdlib"))
    found = {split: [item.id for item in StandardLibrary().documents(split)] for split in SPLITS}
    everything = [name for names in found.values() for name in names]
    assert len(everything) == len(set(everything))
    assert {"ast.py", "json/decoder.py"} <= set(everything)
    assert not any("site-packages" in name or name.startswith("test/") for name in everything)
    assert {path.name for path in root.glob("*.py")} <= set(everything)
    assert all(0.01 < len(found[split]) / len(everything) < 0.12 for split in ("validation", "test"))


def test_documents_are_the_files() -> None:
    root = Path(sysconfig.get_path("stdlib"))
    for item in StandardLibrary().documents("validation"):
        assert isinstance(item, Document)
        assert item.text.encode() == (root / item.id).read_bytes()


def test_its_own_tests_come_when_asked_for() -> None:
    assert StandardLibrary(tests=True).fingerprint("train") != StandardLibrary().fingerprint("train")
