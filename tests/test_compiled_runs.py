"""Compiled runs learn and find what others do, with graphs that are all made in the first steps."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_pi.cli import LitPiCLI
from lit_pi.models.layers import compilation

pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = 4
KINDS = ("texts", "teacher_forced", "generate")


class Graphs(Callback):
    """Counts graphs as training and validation go on."""

    after_steps: list[int]
    after_validation: list[int]

    def __init__(self) -> None:
        type(self).after_steps, type(self).after_validation = [], []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        self.after_steps.append(graphs())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.after_validation.append(graphs())


def graphs() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs of the test alone, without a C++ compiler."""
    monkeypatch.setattr(compilation, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def fit(run: Path, options: list[str], compiled: bool) -> tuple[list[float], dict[str, Any]]:
    """Losses of the steps, and records of evaluations."""
    LitPiCLI([
        "fit", *options, f"--model.compile_layers={str(compiled).lower()}", f"--trainer.max_steps={STEPS}",
        "--trainer.log_every_n_steps=1", "--trainer.val_check_interval=2", "--trainer.check_val_every_n_epoch=null",
        "--trainer.num_sanity_val_steps=0", f"--trainer.default_root_dir={run}",
        f"--trainer.callbacks+={__name__}.Graphs",
    ])  # fmt: skip
    events = EventAccumulator(str(run))
    events.Reload()
    records = json.loads((run / "results.json").read_text())["records"]
    return [event.value for event in events.Scalars("train/loss")], records


@pytest.mark.long
def test_it_learns_and_finds_the_same_and_compiles_no_more(
    counted: None, tmp_path: Path, tiny: list[str], texts: Path
) -> None:
    """Also with passkeys that are scored and ones that are written, at lengths of their own."""
    corpus = f"corpus: {{class_path: TextFiles, init_args: {{test: {texts / 'test'}}}}}"
    windows = f"{{{corpus}, context_lengths: [32, 128], stride: 16, batch_size: 4, max_documents: 2}}"
    keys = "{context_lengths: [420, 470], mode: grid, depths: 2, trials: 1, score: %s}"
    evaluations = f"texts: {{class_path: Perplexity, init_args: {windows}}}" + "".join(
        f", {score}: {{class_path: PasskeyRetrieval, init_args: {keys % score}}}" for score in KINDS[1:]
    )
    options = [*tiny[:-1], f"--data.evaluations={{{evaluations}}}"]
    plain, expected = fit(tmp_path / "plain", options, compiled=False)
    assert graphs() == 0
    losses, found = fit(tmp_path / "compiled", options, compiled=True)
    assert losses == pytest.approx(plain, rel=1e-5)
    curves, records = (
        {(record["evaluation"], record["step"]): record for record in side if "curve" in record or "cells" in record}
        for side in (expected, found)
    )
    assert records.keys() == curves.keys() == {(name, step) for name in KINDS for step in (2, 4)}
    for key, record in records.items():
        for point, wanted in zip(record.get("curve", []), curves[key].get("curve", []), strict=True):
            assert point["token_nll"] == pytest.approx(wanted["token_nll"], rel=1e-5)
        for cell, wanted in zip(record.get("cells", []), curves[key].get("cells", []), strict=True):
            assert cell["correct"] == wanted["correct"]
            assert (cell["log_probability"] or 0) == pytest.approx(wanted["log_probability"] or 0, rel=1e-4)
    # One for the isolation probe and one for training; those of validation with its first windows and prompts.
    assert Graphs.after_steps[:2] == [2, 2]
    assert 2 < Graphs.after_steps[2] < 12
    assert len({*Graphs.after_validation, *Graphs.after_steps[2:]}) == 1
