"""Ranks stop together, and none outlives the others."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from interrupted import killed
from launched import command_lines, launch, start_ranks

from lit_pi.cli import LitPiCLI
from lit_pi.runs.status import read_status

pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = ["--trainer.max_steps=40", "--checkpoint.every_n_train_steps=20", "--trainer.limit_val_batches=0"]
TWO = ["--trainer.devices=2", "--trainer.strategy=fsdp2"]


def run_of(folder: Path) -> list[str]:
    return [*STEPS, f"--trainer.default_root_dir={folder}", "--ckpt_path=auto"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "step-000040.ckpt", weights_only=True)["state_dict"]


def test_a_signal_to_one_rank_stops_all_after_the_same_step(tmp_path: Path, tiny: list[str]) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    words = [*tiny, "--trainer.devices=2", "--trainer.strategy=ddp"]
    ranks = start_ranks(killed, ["fit", *words, *run_of(run)], signal.SIGTERM, 1, processes=2, folder=tmp_path)
    assert [rank.ended() for rank in ranks] == [143, 143]
    status = read_status(run)
    assert (status["state"], status["reason"], status["step"]) == ("interrupted", "SIGTERM", 31)
    # Another number of ranks goes on with the sequences that were not seen.
    alone = [word for word in tiny if "batch_size=2" not in word] + ["--data.batch_size=4"]
    LitPiCLI(["fit", *alone, *run_of(run)])
    LitPiCLI(["fit", *alone, *run_of(whole)])
    for name, tensor in weights(run).items():
        torch.testing.assert_close(tensor, weights(whole)[name], rtol=0, atol=1e-5)


@pytest.mark.long
def test_two_ranks_go_on_to_the_same_bits(tmp_path: Path, tiny: list[str]) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    words = ["fit", *tiny, "--trainer.devices=2", "--trainer.strategy=ddp"]
    ranks = start_ranks(killed, [*words, *run_of(run)], signal.SIGTERM, 1, processes=2, folder=tmp_path)
    assert [rank.ended() for rank in ranks] == [143, 143]
    for folder in (run, whole):
        launch(command_lines, [[*words, *run_of(folder)]], processes=2, folder=tmp_path)
    assert all(torch.equal(tensor, weights(whole)[name]) for name, tensor in weights(run).items())


@pytest.mark.long
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_rank_ends_all_of_them(lost: int, tmp_path: Path, tiny: list[str]) -> None:
    run = tmp_path / "run"
    words = ["fit", *tiny, *TWO, *run_of(run), "--trainer.max_steps=100000"]
    process = subprocess.Popen([sys.executable, "-m", "lit_pi", *words], stderr=subprocess.PIPE, text=True)
    while not list(run.glob("checkpoints/*.ckpt")):
        assert process.poll() is None
        time.sleep(0.2)
    (other,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid if lost == 0 else int(other), signal.SIGKILL)
    said = process.communicate(timeout=60)[1]
    if lost == 1:
        assert process.returncode == 1
        assert read_status(run)["state"] == "failed"
    assert "continue with the same command and --ckpt_path auto" in said
    assert is_gone(int(other))


@pytest.mark.long
def test_a_rank_whose_first_one_dies_while_both_start_ends_too(tmp_path: Path, tiny: list[str]) -> None:
    words = ["fit", *tiny, *TWO, *run_of(tmp_path / "run")]
    process = subprocess.Popen([sys.executable, "-m", "lit_pi", *words], stderr=subprocess.DEVNULL)
    others: list[str] = []
    while not others:
        assert process.poll() is None
        others = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    time.sleep(0.5)
    process.kill()
    process.wait()
    assert is_gone(int(others[0]))


def is_gone(process: int) -> bool:
    deadline = time.monotonic() + 60
    while (there := Path(f"/proc/{process}/status").exists()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return not there
