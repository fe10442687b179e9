"""Run files stay in the run directory, whatever logger a run has; what a logger can take, it gets."""

import csv
import json
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_pi.callbacks.loggers import log_curves
from lit_pi.cli import LitPiCLI
from lit_pi.export import export

FILES = ("fit.yaml", "results.json", "tables.md", "figures/texts-perplexity.png", "checkpoints")


def trained(folder: Path, tiny: list[str], loggers: str) -> Path:
    run = folder / "run"
    words = [f"--trainer.logger={loggers}", "--trainer.max_steps=2", "--trainer.val_check_interval=2"]
    words += ["--trainer.log_every_n_steps=1", f"--trainer.default_root_dir={run}"]
    LitPiCLI(["fit", *tiny, *words])
    return run


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["false", pytest.param("csv", marks=pytest.mark.long), "tensorboard and csv"])
def test_run_files_are_in_the_run_directory(kind: str, tmp_path: Path, tiny: list[str]) -> None:
    elsewhere = {"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path / "csv"), "name": "", "version": ""}}
    board = {
        "class_path": "TensorBoardLogger",
        "init_args": {"save_dir": str(tmp_path / "tb"), "name": "", "version": ""},
    }
    loggers = {"false": "false", "csv": json.dumps(elsewhere), "tensorboard and csv": json.dumps([board, elsewhere])}
    run = trained(tmp_path, tiny, loggers[kind])
    assert [name for name in FILES if not (run / name).exists()] == []
    if "csv" in kind:
        rows = list(csv.DictReader((tmp_path / "csv" / "metrics.csv").open()))
        (record,) = json.loads((run / "results.json").read_text())["records"]
        (found,) = (float(row["texts/perplexity/64"]) for row in rows if row["texts/perplexity/64"])
        point = next(point for point in record["curve"] if point["context_length"] == 64)
        assert found == pytest.approx(point["perplexity"], rel=1e-6)
        settings = yaml.safe_load((tmp_path / "csv" / "hparams.yaml").read_text())
        assert settings["data"]["init_args"]["context_length"] == 64 if "init_args" in settings["data"] else settings
    if "tensorboard" in kind:
        events = EventAccumulator(str(tmp_path / "tb")).Reload()
        assert "texts/perplexity" in events.Tags()["images"]
        assert {"config/fit/text_summary", "results/text_summary"} <= set(events.Tags()["tensors"])
        assert "_hparams_/session_start_info" in events.summary_metadata
        assert b"^texts/perplexity/" in events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    export(run, tmp_path / "exported")
    assert (tmp_path / "exported" / "config.json").exists()


def test_runs_lie_over_one_another_along_the_context_length(tmp_path: Path) -> None:
    logger = TensorBoardLogger(str(tmp_path), name="", version="")
    log_curves(logger, {"texts/perplexity/64": 2.5, "texts/perplexity/32": 3.0, "texts/gain": 1.0})
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == ["curves/texts/perplexity"]
    assert [(point.step, point.value) for point in events.Scalars("curves/texts/perplexity")] == [(32, 3.0), (64, 2.5)]
