"""Two or three processes give the numbers of one: plain and sharded, training and evaluation."""

import json
from pathlib import Path

import pyarrow.parquet
import pytest
from launched import command_lines, launch

from lit_pi.cli import LitPiCLI

pytestmark = pytest.mark.filterwarnings("ignore")

PARALLELISM = {
    "single": ["--trainer.devices=1"],
    "plain": ["--trainer.strategy=ddp", "--trainer.devices=3"],
    "fsdp2": ["--trainer.strategy=FSDP2", "--trainer.strategy.compute_dtype=float32", "--trainer.devices=2"],
}


def predict(folder: Path, tiny: list[str]) -> list[str]:
    """Three lengths by two ranks, each with angles of its own: ranks decode groups of other sizes at the same time."""
    folder.mkdir()
    for name, text in {"a": "x" * 90, "b": "y" * 70, "c": "z" * 90, "d": "the " * 10, "e": "it"}.items():
        (folder / f"{name}.txt").write_text(text)
    return [
        "predict", *(word for word in tiny if not word.startswith(("--data", "--model.position"))),
        "--model.position=DynamicNTK", "--model.position.scale=4", "--data.predict=Prompts",
        f"--data.predict.files={folder}", "--data.predict.max_new_tokens=6", "--data.predict.batch_size=2",
    ]  # fmt: skip


def decode(folder: Path, tiny: list[str], texts: Path) -> list[str]:
    """Summaries, written passkeys and decode consistency, with batches that only fill up on one of the ranks."""
    folder.mkdir()
    reports = folder / "reports.jsonl"
    reports.write_text("".join(json.dumps({"report": "boats " * n, "summary": "boats"}) + "\n" for n in (9, 2, 5)))
    evaluations = {
        "summaries": {"class_path": "Summarization", "init_args": {
            "corpus": {"class_path": "GovReportCorpus", "init_args": {"test": str(reports), "learn": "summary"}},
            "max_new_tokens": 6, "seeds": [0], "batch_size": 2,
        }},
        "keys": {"class_path": "PasskeyRetrieval", "init_args": {
            "context_lengths": [420], "mode": "random", "trials": 1, "score": "generate",
        }},
        "decode": {"class_path": "DecodeConsistency", "init_args": {
            "corpus": {"class_path": "TextFiles", "init_args": {"test": str(texts / "test")}},
            "context_length": 200, "steps": 4, "max_documents": 3,
        }},
    }  # fmt: skip
    return [
        "test", *(word for word in tiny if not word.startswith(("--data.evaluations", "--model.position"))),
        f"--data.evaluations={json.dumps(evaluations)}", "--model.position=DynamicNTK", "--model.position.scale=4",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny: list[str], texts: Path) -> Path:
    """A folder PARALLELISM/NAME of each run."""
    folder = tmp_path_factory.mktemp("runs")
    named = {
        "windows": ["test", *tiny],
        "predict": predict(folder / "prompts", tiny),
        "decode": decode(folder / "reports", tiny, texts),
    }

    def words(parallelism: str, *names: str) -> list[list[str]]:
        return [
            [*named[name], *PARALLELISM[parallelism], f"--trainer.default_root_dir={folder / parallelism / name}"]
            for name in names
        ]

    for each in words("single", *named):
        LitPiCLI(each)
    launch(command_lines, words("plain", "windows"), processes=3, folder=folder)
    launch(command_lines, words("fsdp2", *named), processes=2, folder=folder)
    return folder


def points(run: Path) -> list[dict]:
    (record,) = json.loads((run / "results.json").read_text())["records"]
    assert not record["partial"]
    return [point for name in sorted(record["definitions"]) for point in record["definitions"][name]]


@pytest.mark.parametrize("parallelism", ["plain", "fsdp2"])
def test_uneven_windows_neither_hang_nor_count_twice(parallelism: str, runs: Path) -> None:
    found, single = (points(runs / each / "windows") for each in (parallelism, "single"))
    assert len(single) > 0
    for point, expected in zip(found, single, strict=True):
        assert point["context_length"] == expected["context_length"]
        assert point["documents"] == expected["documents"]
        assert point["value"] == pytest.approx(expected["value"], rel=1e-5)


def test_sharded_ranks_continue_uneven_prompts_together(runs: Path) -> None:
    single, sharded = (runs / each / "predict" / "predictions.jsonl" for each in ("single", "fsdp2"))
    assert sharded.read_text() == single.read_text()
    assert len(single.read_text().splitlines()) == 5


def test_sharded_ranks_write_and_compare_what_one_process_does(runs: Path) -> None:
    single, sharded = (
        {record["kind"]: record for record in json.loads((runs / each / "decode/results.json").read_text())["records"]}
        for each in ("single", "fsdp2")
    )
    assert sharded["summarization"]["measures"] == single["summarization"]["measures"]
    assert sharded["passkey"]["cells"] == single["passkey"]["cells"]
    assert sharded["decode_consistency"]["consistent"] and sharded["decode_consistency"]["tokens"] == 12
    table = "decode/summaries/summaries-test.parquet"
    written = [pyarrow.parquet.read_table(runs / each / table) for each in ("single", "fsdp2")]
    assert written[0].equals(written[1]) and written[0].num_rows == 3
