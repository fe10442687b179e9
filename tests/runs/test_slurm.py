"""A job that Slurm asks to requeue goes on by the same command."""

import os
import signal
from pathlib import Path

import pytest
from interrupted import killed
from launched import command_lines, start

from lit_pi.runs.status import read_status

pytestmark = pytest.mark.filterwarnings("ignore")

JOB = {
    "SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "fit", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "localhost",
}  # fmt: skip


@pytest.mark.parametrize(
    ("array", "job"), [({}, "77"), ({"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "3"}, "70_3")]
)
def test_it_is_requeued_and_goes_on(array: dict[str, str], job: str, tmp_path: Path, tiny: list[str]) -> None:
    scontrol, run = tmp_path / "scontrol", tmp_path / "run"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    words = ["fit", *tiny, "--trainer.max_steps=40", "--checkpoint.every_n_train_steps=20"]
    words += ["--trainer.limit_val_batches=0", f"--trainer.default_root_dir={run}", "--ckpt_path=auto"]
    environment = {**JOB, **array, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert start(killed, words, signal.SIGUSR1, folder=tmp_path, **environment).ended() == 138
    assert (tmp_path / "asked").read_text() == f"requeue {job}\n"
    assert read_status(run)["step"] == 31
    assert not list(run.glob("hpc_ckpt*"))
    if array:
        return
    assert start(command_lines, [words], folder=tmp_path, **environment).ended() == 0
    assert (read_status(run)["state"], read_status(run)["step"]) == ("finished", 40)
