"""Weights & Biases, MLflow and Optuna: what `make test-long` installs beside (the extra `trackers`)."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lit_pi.cli import LitPiCLI
from lit_pi.export import export

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]
MONITOR = "texts/perplexity/64"


def words(run: Path, tiny: list[str], *more: str) -> list[str]:
    steps = ["--trainer.max_steps=4", "--trainer.val_check_interval=2", "--trainer.log_every_n_steps=1"]
    return ["fit", *tiny, *steps, f"--trainer.default_root_dir={run}", *more]


def measured(run: Path) -> float:
    """Perplexity that the last record holds."""
    record = json.loads((run / "results.json").read_text())["records"][-1]
    return next(point["perplexity"] for point in record["curve"] if point["context_length"] == 64)


def exports(run: Path, folder: Path) -> None:
    assert [n for n in ("fit.yaml", "tables.md", "figures/texts-perplexity.png") if not (run / n).exists()] == []
    export(run, folder)
    assert (folder / "config.json").exists()


def test_weights_and_biases_offline(tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    options = {"save_dir": str(tmp_path), "offline": True, "project": "tiny"}
    logger = json.dumps({"class_path": "WandbLogger", "init_args": options})
    cli = LitPiCLI(words(tmp_path / "run", tiny, f"--trainer.logger={logger}"))
    kept = cli.trainer.logger.experiment
    assert kept.summary[MONITOR] == pytest.approx(measured(tmp_path / "run"), rel=1e-6)
    assert kept.config["data"]["context_length"] == 64
    wandb.finish()
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    assert list(folder.glob("files/media/images/texts/perplexity_*.png"))
    assert list(folder.glob("files/media/table/results_*.json"))
    exports(tmp_path / "run", tmp_path / "exported")


def test_mlflow_in_a_folder(tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # which newer MLflow asks for
    logger = json.dumps({"class_path": "MLFlowLogger", "init_args": {"save_dir": str(tmp_path / "mlflow")}})
    cli = LitPiCLI(words(tmp_path / "run", tiny, f"--trainer.logger={logger}"))
    client, run_id = cli.trainer.logger.experiment, cli.trainer.logger.run_id
    kept = client.get_run(run_id).data
    assert kept.metrics[MONITOR] == pytest.approx(measured(tmp_path / "run"), rel=1e-6)
    assert kept.params["data/context_length"] == "64"
    assert "figures/texts-perplexity.png" in {file.path for file in client.list_artifacts(run_id, "figures")}
    assert {file.path for file in client.list_artifacts(run_id)} >= {"results.md", "config"}
    exports(tmp_path / "run", tmp_path / "exported")


def test_optuna_prunes_by_a_measurement(tmp_path: Path, tiny: list[str]) -> None:
    optuna = pytest.importorskip("optuna")
    pruning = pytest.importorskip("optuna_integration").PyTorchLightningPruningCallback
    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=1))

    def objective(trial: Any) -> float:
        place = ModuleType("place_of_the_trial")
        place.Pruning = type("Pruning", (pruning,), {"__init__": lambda self: pruning.__init__(self, trial, MONITOR)})
        sys.modules[place.__name__] = place
        LitPiCLI(words(tmp_path / "run", tiny, "--trainer.callbacks=place_of_the_trial.Pruning"))
        return 0.0

    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert trial.state.name == "PRUNED"
    assert list(trial.intermediate_values.values()) == pytest.approx([measured(tmp_path / "run")])
