"""Results of a test on documents that the model was trained on say so."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lit_pi.cli import LitPiCLI
from lit_pi.evaluations.records import Run, label


@pytest.fixture
def shared(texts: Path, tmp_path: Path) -> Path:
    """A folder of the five test documents and, under other names, two that are trained on."""
    folder = tmp_path / "shared"
    shutil.copytree(texts / "test", folder)
    for number in (3, 4):
        shutil.copy(texts / "train" / f"{number:02}.txt", folder / f"other name {number}.txt")
    return folder


def measured(words: list[str], run: Path, documents: Path, texts: Path) -> dict[str, Any]:
    """The record of a test on other documents."""
    words = [word.replace(f"test: {texts / 'test'}", f"test: '{documents}'") for word in words]
    LitPiCLI(["test", *words, "--trainer.limit_test_batches=1", f"--trainer.default_root_dir={run}"])
    (record,) = json.loads((run / "results.json").read_text())["records"]
    return record


@pytest.mark.filterwarnings("ignore")
def test_documents_of_training_are_counted_in_results(
    tiny: list[str], texts: Path, shared: Path, store_cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit, again = tmp_path / "fit", tmp_path / "again"
    options = ["--trainer.max_steps=1", "--trainer.limit_val_batches=0"]
    LitPiCLI(["fit", *tiny, *options, f"--trainer.default_root_dir={fit}"])
    (checkpoint,) = (fit / "checkpoints").iterdir()
    record = measured([*tiny, f"--ckpt_path={checkpoint}"], tmp_path / "one", shared, texts)
    assert record["trained_on"] == {"documents": 2, "of": 7, "in": ["text_files, train"], "unknown": []}
    assert "texts: the model was trained on 2 of 7 documents" in caplog.text
    assert "trained on 2 of 7 documents)" in label(Run("one", tmp_path), record)
    assert "trained on 2 of 7 documents" in (tmp_path / "one" / "tables.md").read_text()

    # Training goes on elsewhere; what was before is still known.
    pretrained = [word for word in tiny if "--model.llm" not in word]
    pretrained += ["--model.llm=Pretrained", f"--model.llm.path={fit}"]
    elsewhere = [f"--data.train.train={texts / 'test'}", *options, f"--trainer.default_root_dir={again}"]
    LitPiCLI(["fit", *pretrained, *elsewhere])
    final = [word for word in pretrained if "--model.llm.path" not in word] + [f"--model.llm.path={again}"]
    assert measured(final, tmp_path / "two", shared, texts)["trained_on"]["documents"] == 7
    shutil.rmtree(store_cache)
    record = measured(final, tmp_path / "three", shared, texts)
    assert record["trained_on"] == {"documents": None, "of": 7, "in": [], "unknown": ["text_files, train"] * 2}
