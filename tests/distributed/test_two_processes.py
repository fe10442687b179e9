"""Two or three processes give the numbers of one: plain and sharded, training and evaluation."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from lit_pi.cli import LitPiCLI

PARALLELISM = {
    "plain": ["--trainer.strategy=ddp", "--trainer.devices=3"],
    "fsdp2": [
        "--trainer.strategy=FSDP2",
        "--trainer.strategy.compute_dtype=float32",
        "--trainer.devices=2",
    ],
    "single": ["--trainer.devices=1"],
}


def points(words: list[str], run: Path) -> list[dict]:
    command = [sys.executable, "-m", "lit_pi", "test", *words, f"--trainer.default_root_dir={run}"]
    subprocess.run(command, check=True, capture_output=True, timeout=240, cwd=run)
    (record,) = json.loads((run / "results.json").read_text())["records"]
    assert not record["partial"]
    return [point for name in sorted(record["definitions"]) for point in record["definitions"][name]]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> list[dict]:
    return points([*tiny, *PARALLELISM["single"]], tmp_path_factory.mktemp("single"))


@pytest.mark.parametrize("parallelism", ["plain", "fsdp2"])
def test_uneven_windows_neither_hang_nor_count_twice(
    parallelism: str, tmp_path: Path, tiny: list[str], single: list[dict]
) -> None:
    found = points([*tiny, *PARALLELISM[parallelism]], tmp_path)
    for point, expected in zip(found, single, strict=True):
        assert point["context_length"] == expected["context_length"]
        assert point["documents"] == expected["documents"]
        assert point["value"] == pytest.approx(expected["value"], rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_sharded_ranks_continue_uneven_prompts_together(tmp_path: Path, tiny: list[str]) -> None:
    """Three lengths by two ranks, each with angles of its own: ranks decode groups of other sizes at the same time."""
    (tmp_path / "texts").mkdir()
    for name, text in {"a": "x" * 90, "b": "y" * 70, "c": "z" * 90, "d": "the " * 10, "e": "it"}.items():
        (tmp_path / "texts" / f"{name}.txt").write_text(text)
    words = [
        "predict", *(word for word in tiny if not word.startswith(("--data", "--model.position"))),
        "--model.position=DynamicNTK", "--model.position.scale=4", "--data.predict=Prompts",
        f"--data.predict.files={tmp_path / 'texts'}", "--data.predict.max_new_tokens=6", "--data.predict.batch_size=2",
    ]  # fmt: skip
    LitPiCLI([*words, *PARALLELISM["single"], f"--trainer.default_root_dir={tmp_path / 'single'}"])
    command = [sys.executable, "-m", "lit_pi", *words, *PARALLELISM["fsdp2"]]
    command.append(f"--trainer.default_root_dir={tmp_path / 'sharded'}")
    subprocess.run(command, check=True, capture_output=True, timeout=240, cwd=tmp_path)
    single, sharded = (tmp_path / run / "predictions.jsonl" for run in ("single", "sharded"))
    assert sharded.read_text() == single.read_text()
    assert len(single.read_text().splitlines()) == 5


@pytest.mark.filterwarnings("ignore")
def test_sharded_ranks_write_and_compare_what_one_process_does(tmp_path: Path, tiny: list[str], texts: Path) -> None:
    """Summaries, written passkeys and decode consistency, with batches that only fill up on one of the ranks."""
    reports = tmp_path / "reports.jsonl"
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
    words = [
        "test", *(word for word in tiny if not word.startswith(("--data.evaluations", "--model.position"))),
        f"--data.evaluations={json.dumps(evaluations)}", "--model.position=DynamicNTK", "--model.position.scale=4",
    ]  # fmt: skip
    LitPiCLI([*words, *PARALLELISM["single"], f"--trainer.default_root_dir={tmp_path / 'single'}"])
    command = [sys.executable, "-m", "lit_pi", *words, *PARALLELISM["fsdp2"]]
    command.append(f"--trainer.default_root_dir={tmp_path / 'sharded'}")
    subprocess.run(command, check=True, capture_output=True, timeout=240, cwd=tmp_path)
    single, sharded = (
        {record["kind"]: record for record in json.loads((tmp_path / run / "results.json").read_text())["records"]}
        for run in ("single", "sharded")
    )
    assert sharded["summarization"]["measures"] == single["summarization"]["measures"]
    assert sharded["passkey"]["cells"] == single["passkey"]["cells"]
    assert sharded["decode_consistency"]["consistent"] and sharded["decode_consistency"]["tokens"] == 12
    table = "summaries/summaries-test.parquet"
    written = [pyarrow.parquet.read_table(tmp_path / run / table) for run in ("single", "sharded")]
    assert written[0].equals(written[1]) and written[0].num_rows == 3
