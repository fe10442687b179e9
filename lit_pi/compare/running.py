"""Cells as processes: one after another, or side by side on the GPUs of this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue

import torch

from lit_pi.compare.cells import Cell
from lit_pi.runs.owner import is_owned
from lit_pi.runs.ranks import ENDS_WITH_PARENT, GRACE
from lit_pi.runs.signals import NAMES

LOG = "log.txt"
"""In a cell's directory: what its process said."""
ATTEMPTS = 2
"""Times that a cell is tried which fails through nobody's mistake."""
FINAL = {2, *(128 + number for number in NAMES)}
"""Exit statuses of a mistake, and of a signal that was meant: another attempt would not mend them."""

Say = Callable[[Cell, str], None]


class Runner:
    """Runs cells that are not done, each after those that it needs.

    Args:
        say: is told what becomes of each.

    Attributes:
        failed: why cells failed or could not be run, by digest.
    """

    def __init__(self, say: Say) -> None:
        self.failed: dict[str, str] = {}
        self._say = say
        self._slots: SimpleQueue[str | None] = SimpleQueue()
        for slot in _devices():
            self._slots.put(slot)
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._ends = False

    def run(self, cells: Sequence[Cell], most: int | None = None) -> int:
        """Run cells, and return how many were run.

        Args:
            cells: in an order in which they can be run.
            most: the number of them that are run at most.
        """
        waiting = [cell for cell in cells if not cell.is_done()][:most]
        number = len(waiting)
        with ThreadPoolExecutor(max(self._slots.qsize(), 1)) as pool:
            try:
                self._run(pool, waiting)
            except BaseException:
                self._ends = True
                for process in list(self._processes):
                    process.send_signal(signal.SIGTERM)  # after which they have saved
                raise
        return number

    def _run(self, pool: ThreadPoolExecutor, waiting: list[Cell]) -> None:
        running: dict[Future[None], Cell] = {}
        while waiting or running:
            for cell in list(waiting):
                if lost := next((each for each in cell.needs if each.digest in self.failed), None):
                    self._fail(cell, f"it needs {lost.name}, which failed")
                    waiting.remove(cell)
                elif all(each.is_done() for each in cell.needs):
                    running[pool.submit(self._try, cell)] = cell
                    waiting.remove(cell)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                running.pop(future)
                future.result()

    def _try(self, cell: Cell) -> None:
        slot = self._slots.get()
        try:
            status, attempt, began = 1, 0, time.monotonic()
            while status and status not in FINAL and attempt < ATTEMPTS and not self._ends:
                attempt += 1
                self._say(cell, "runs" if attempt == 1 else "failed, and runs again")
                status = self._status(cell, slot)
            if status:
                self._fail(cell, f"it ended with status {status}: {_last_line(cell.directory / LOG)}")
            else:
                self._say(cell, f"done in {time.monotonic() - began:,.0f} s")
        finally:
            self._slots.put(slot)

    def _fail(self, cell: Cell, reason: str) -> None:
        self.failed[cell.digest] = reason
        self._say(cell, reason)

    def _status(self, cell: Cell, slot: str | None) -> int:
        """Run a cell's process, and return its exit status."""
        deadline = time.monotonic() + 3 * GRACE
        while is_owned(cell.directory) and time.monotonic() < deadline:  # by a process that an end has not reached yet
            time.sleep(0.2)
        cell.write()
        environment = os.environ | {ENDS_WITH_PARENT: "1"} | ({} if slot is None else {"CUDA_VISIBLE_DEVICES": slot})
        command = [sys.executable, "-m", "lit_pi", *cell.words]
        with (cell.directory / LOG).open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)  # noqa: S603
            self._processes.add(process)
            try:
                return process.wait()
            finally:
                self._processes.discard(process)


def _devices() -> list[str | None]:
    """Values of `CUDA_VISIBLE_DEVICES` under which cells run side by side; None leaves it as it is."""
    if torch.cuda.device_count() < 2:
        return [None]
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return list(given.split(",") if given else map(str, range(torch.cuda.device_count())))


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").split("\n")
    errors = [line for line in lines if line.startswith("lit-pi: error: ")] or [line for line in lines if line.strip()]
    return f"{errors[-1].removeprefix('lit-pi: error: ')} (see {path})" if errors else f"see {path}"
