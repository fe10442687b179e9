"""Processes of their own that need no seconds to start: they fork from a server that has imported lit_pi once."""

import csv
import json
import multiprocessing
import os
import re
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet
from torch import distributed

from lit_pi.cli import LitPiCLI

# Elsewhere than on Linux, a process that forks after its imports may hang: there each imports for itself.
START = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
START.set_forkserver_preload(
    ["lit_pi.cli", "omegaconf", "tensorboard.summary.writer.event_file_writer", "torch.utils.tensorboard"]
)

FSDP2_WARNS = "FSDP2-wrapped module"
"""How FSDP2 begins to warn, as of hooks that are lost with a view; an error in these processes."""


class Started(NamedTuple):
    """A process, and the file of what it prints."""

    process: multiprocessing.process.BaseProcess
    output: Path

    def ended(self) -> int:
        """Wait, and return the exit status, which is negative after a signal."""
        self.process.join(120)
        assert self.process.exitcode is not None, f"it does not end\n{self.output.read_text()[-5000:]}"
        return self.process.exitcode


def start(function: Callable[..., object], *arguments: object, folder: Path, **environment: str) -> Started:
    """Call a function of a module of this folder (`tests`) in a process that works in a folder."""
    output = folder / f"output-{environment.get('RANK', '0')}-{time.monotonic_ns()}.log"
    process = START.Process(target=_call, args=(function, arguments, folder, output, {**os.environ, **environment}))
    process.start()
    return Started(process, output)


def _call(
    function: Callable[..., object],
    arguments: tuple[object, ...],
    folder: Path,
    output: Path,
    environment: dict[str, str],
) -> None:
    with output.open("w", buffering=1) as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server ignores it
    warnings.filterwarnings("error", re.escape(FSDP2_WARNS))
    function(*arguments)


def start_ranks(function: Callable[..., object], *arguments: object, processes: int, folder: Path) -> list[Started]:
    """Call it in so many processes that are ranks as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    size = str(processes)
    return [
        start(
            function, *arguments, folder=folder, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=size,
            LOCAL_WORLD_SIZE=size, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="tests",
        )
        for rank in range(processes)
    ]  # fmt: skip


def launch(
    function: Callable[..., object], *arguments: object, processes: int, folder: Path, timeout: float = 240
) -> None:
    """Call it in processes that are ranks, and wait; what they print is shown if one fails."""
    ranks = start_ranks(function, *arguments, processes=processes, folder=folder)
    deadline, running = time.monotonic() + timeout, [rank.process for rank in ranks]
    try:
        while running and time.monotonic() < deadline and not any(process.exitcode for process in running):
            wait([process.sentinel for process in running], max(0, deadline - time.monotonic()))
            running = [process for process in running if process.exitcode != 0]
    finally:
        for process in running:
            process.kill()
    said = "\n".join(rank.output.read_text()[-10_000:] for rank in ranks)
    assert not running, f"{len(running)} of {processes} processes failed, or did not end in {timeout} s\n{said}"


def command_lines(runs: list[list[str]]) -> None:
    """Words of the command line, one after another, so that a test's processes start once."""
    for words in runs:
        LitPiCLI(words)
    if distributed.is_initialized():
        distributed.destroy_process_group()


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
