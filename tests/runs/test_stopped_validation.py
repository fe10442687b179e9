"""A validation that a signal meets is measured when the run goes on."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_pi.cli import LitPiCLI
from lit_pi.module import LitLlama
from lit_pi.runs.signals import Stopped
from lit_pi.runs.status import read_status

pytestmark = pytest.mark.filterwarnings("ignore")

VALIDATE = LitLlama.validation_step


def words_of(run: Path, tiny: list[str]) -> list[str]:
    every = [word.replace("stride: 16", "stride: 16, every_n_steps: 3") for word in tiny]
    return ["fit", *every, "--trainer.max_steps=6", f"--trainer.default_root_dir={run}", "--ckpt_path=auto"]


def found(run: Path) -> dict[int, Any]:
    records = json.loads((run / "results.json").read_text())["records"]
    return {record["step"]: record["curve"] for record in records}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    run = tmp_path_factory.mktemp("whole")
    LitPiCLI(words_of(run, tiny))
    return run


def test_it_is_cut_short_and_measured_first_when_the_run_goes_on(
    tmp_path: Path, tiny: list[str], whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: LitLlama, batch: Any, *indices: int) -> Any:
        if self.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return VALIDATE(self, batch, *indices)

    with monkeypatch.context() as patch:
        patch.setattr(LitLlama, "validation_step", step)
        with pytest.raises(Stopped):
            LitPiCLI(words_of(tmp_path, tiny))
    assert read_status(tmp_path)["step"] == 3
    assert not (tmp_path / "results.json").exists()
    LitPiCLI(words_of(tmp_path, tiny))
    assert found(tmp_path) == found(whole)
    assert list(found(tmp_path)) == [3, 6]
    weights = [
        torch.load(run / "checkpoints" / "step-000006.ckpt", weights_only=True)["state_dict"]
        for run in (tmp_path, whole)
    ]
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


def test_a_run_that_goes_on_does_not_measure_twice(tmp_path: Path, tiny: list[str], whole: Path) -> None:
    words = words_of(tmp_path, tiny)
    LitPiCLI([*words, "--trainer.max_steps=3"])
    before = found(tmp_path)
    record = (tmp_path / "results.json").read_text()
    LitPiCLI([*words, "--trainer.max_steps=4"])
    assert (tmp_path / "results.json").read_text() == record
    assert list(before) == [3]
