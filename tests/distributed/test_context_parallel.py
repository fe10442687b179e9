"""Two processes that split every sequence between them learn, score and write what one process does."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from launched import launch

from lit_pi.cli import LitPiCLI
from lit_pi.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")

SPLIT = [
    "--trainer.strategy=FSDP2", "--trainer.strategy.compute_dtype=float32", "--trainer.devices=2",
    "--trainer.strategy.context_parallel_size=2",
]  # fmt: skip

RUNS = {
    "DynamicNTK": ["--model.position.scale=4", "--model.activation_checkpointing.mode=attention_saved"],
    "SelfExtend": [
        "--model.position.group_size=4", "--model.position.window=12", "--model.activation_checkpointing.mode=full",
    ],
    "YaRN": [
        "--model.position.scale=4", "--data.packing=single", "--model.train_positions=PoSE",
        "--model.train_positions.target_context=256",
    ],
}  # fmt: skip
"""Packed documents under two strategies, one with an attention rule; single ones whose positions skip."""


def words_of(name: str, tiny: list[str], texts: Path) -> list[str]:
    """Steps that would show a gradient of the wrong size, on lengths that two ranks cannot share evenly."""
    evaluation = {"class_path": "Perplexity", "init_args": {
        "corpus": {"class_path": "TextFiles", "init_args": {"test": str(texts / "test")}},
        "context_lengths": [30, 61], "stride": 29, "batch_size": 5,
    }}  # fmt: skip
    kept = (word for word in tiny if not word.startswith(("--model.position", "--data.evaluations", "--data.context")))
    return [
        "fit", *kept, f"--model.position={name}", *RUNS[name], "--data.context_length=56",
        f"--data.evaluations={json.dumps({'texts': evaluation})}", "--model.optimizer=SGD", "--model.optimizer.lr=1",
        "--trainer.max_steps=4", "--trainer.val_check_interval=4", "--trainer.log_every_n_steps=1",
        "--trainer.logger=CSVLogger",
    ]  # fmt: skip


def found_in(run: Path) -> tuple[list[float], dict[str, Any], Any]:
    """Losses of the steps, the record of the evaluation, and the sums of its documents."""
    (log,) = run.rglob("metrics.csv")
    with log.open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]
    (record,) = json.loads((run / "results.json").read_text())["records"]
    return losses, record, pyarrow.parquet.read_table(run / record["table"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny: list[str], texts: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    split = []
    for name in RUNS:
        words = words_of(name, tiny, texts)
        for kind, more in (("single", []), ("split", SPLIT)):
            run = folder / kind / name
            both = [*words, *more, f"--trainer.default_root_dir={run}", f"--trainer.logger.save_dir={run / 'log'}"]
            if kind == "single":
                LitPiCLI(both)
            else:
                split.append(both)
    launch(split, 2, folder)
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_learn_and_score_what_one_process_does(name: str, runs: Path) -> None:
    losses, record, sums = found_in(runs / "split" / name)
    expected_losses, expected_record, expected_sums = found_in(runs / "single" / name)
    assert len(losses) == 4 and max(losses) - min(losses) > 0.1
    assert losses == pytest.approx(expected_losses, abs=1e-5)
    for name, points in expected_record["definitions"].items():
        for point, expected in zip(record["definitions"][name], points, strict=True):
            assert point["documents"] == expected["documents"]
            assert point["value"] == pytest.approx(expected["value"], rel=1e-5)
    assert sums.schema == expected_sums.schema and sums.num_rows == expected_sums.num_rows
    print(sums.to_pylist()[0])
