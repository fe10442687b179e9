"""Runs of `lit-pi` in processes that torchrun starts: all of one test's after another, so that they start once."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet
from torch import distributed

from lit_pi.cli import LitPiCLI

FSDP2_WARNS = "error:FSDP2-wrapped module"
"""An error where FSDP2 warns, as of hooks that are lost with a view."""


def launch(runs: list[list[str]], processes: int, folder: Path, timeout: int = 240) -> None:
    """Run words of the command line in so many processes of this machine; what they print is shown if they fail."""
    (folder / "runs.json").write_text(json.dumps(runs))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*torchrun, __file__, str(folder / "runs.json")],
        capture_output=True, text=True, timeout=timeout, cwd=folder, env=os.environ | {"PYTHONWARNINGS": FSDP2_WARNS},
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"[-20_000:]


class Found(NamedTuple):
    """What a run has found: losses of its steps, and tokens and loss (nats) of every document and context length."""

    losses: list[float]
    tokens: list[int]
    nll: list[float]


def found_in(run: Path) -> Found:
    """What `fit` with Lightning's CSVLogger and one evaluation of perplexity has left in its run directory."""
    (log,) = run.rglob("metrics.csv")
    with log.open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]
    (record,) = json.loads((run / "results.json").read_text())["records"]
    sums = pyarrow.parquet.read_table(run / record["table"])
    return Found(losses, sums["tokens"].to_pylist(), sums["nll"].to_pylist())


if __name__ == "__main__":
    for words in json.loads(Path(sys.argv[1]).read_text()):
        LitPiCLI(words)
    distributed.destroy_process_group()
