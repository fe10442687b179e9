"""Runs of `lit-pi` that a signal ends, and ones that write down which sequences they read."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from lit_pi.batches import TrainingBatch
from lit_pi.cli import LitPiCLI
from lit_pi.module import LitLlama

STEP = LitLlama.training_step


def killed(words: list[str], how: signal.Signals, rank: int = 0) -> None:
    """Send this process, if it is of that rank, a signal amid the 31st step, as soon as there is a checkpoint."""
    (where,) = (word.partition("=")[2] for word in words if word.startswith("--trainer.default_root_dir="))

    def step(self: LitLlama, batch: TrainingBatch, batch_idx: int) -> Tensor:
        if batch_idx == 30 and self.global_rank == rank:
            while not list(Path(where).glob("checkpoints/*.ckpt")):
                time.sleep(0.01)
            os.kill(os.getpid(), how)
        return STEP(self, batch, batch_idx)

    LitLlama.training_step = step
    LitPiCLI(words)


def watched(name: Path, words: list[str]) -> None:
    """Write the tokens of every sequence into a file `NAME-RANK`, a line each."""

    def step(self: LitLlama, batch: TrainingBatch, *rest: Any) -> Tensor:
        with Path(f"{name}-{self.global_rank}").open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in batch.input_ids.tolist())
        return STEP(self, batch, *rest)

    LitLlama.training_step = step
    LitPiCLI(words)


def group_stopped(words: list[str], how: signal.Signals) -> None:
    """Become the head of a group of processes, and have another send all of it a signal amid the third step."""
    os.setsid()

    def step(self: LitLlama, batch: TrainingBatch, batch_idx: int) -> Tensor:
        if batch_idx == 2:
            subprocess.run(["sh", "-c", f"kill -{int(how)} -{os.getpid()}"], start_new_session=True)
            time.sleep(0.3)
        return STEP(self, batch, batch_idx)

    LitLlama.training_step = step
    LitPiCLI(words)
