"""Memory and time that a run takes, measured while it runs."""

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_pi.errors import UserError
from lit_pi.models.training.malloc import return_freed_memory
from lit_pi.parallel.shards import own_part

_PROCESS = Path("/proc/self")
_RESET_PEAK = "5"  # proc(5), /proc/pid/clear_refs


class StepMeter(Callback):
    """Measures a fit's largest memory and its last step's time.

    A GPU's memory is what torch's allocator has given out (`torch.cuda.max_memory_allocated`). The CPU's is the
    kernel's record of the process's largest resident memory, without growth of mapped files, above what was resident
    when training began, and the weights that were there by then. glibc keeps freed blocks below 32 MiB for later, a
    third of a small run's memory; while it measures, it gives them back.

    Attributes:
        bytes: bytes on the device at the peak, on this rank.
        host: bytes of the CPU's memory at the peak, on this rank; 0 beside a GPU where the kernel keeps no such record.
        seconds: time of the last step.

    Raises:
        UserError: training began on CPUs where the kernel keeps no such record.
    """

    def __init__(self) -> None:
        self.bytes = self.host = 0
        self.seconds = 0.0
        self._before: int | None = None
        self._began = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget earlier peaks."""
        on_gpu = pl_module.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        else:
            return_freed_memory()
        try:
            (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
        except OSError as error:
            if on_gpu:
                return
            raise UserError(
                "the memory of CPU runs is measured with Linux's /proc/self/clear_refs, which cannot be written here: "
                "leave out --verify"
            ) from error
        weights = sum(part.nbytes for each in pl_module.parameters() if (part := own_part(each)).device.type == "cpu")
        self._before = _resident("VmRSS") - _resident("RssFile") - weights

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        """Note when a step begins."""
        self._began = _now(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        """Note how long it took."""
        self.seconds = _now(pl_module) - self._began

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the peak."""
        if self._before is not None:
            self.host = _resident("VmHWM") - _resident("RssFile") - self._before
        on_gpu = pl_module.device.type == "cuda"
        self.bytes = torch.cuda.max_memory_allocated(pl_module.device) if on_gpu else self.host


def _resident(field: str) -> int:
    """Bytes in a field of the process's status."""
    lines = (_PROCESS / "status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(kilobytes) * 1024


def _now(module: LightningModule) -> float:
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
    return time.perf_counter()
