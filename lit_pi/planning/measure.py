"""What a run needs while it runs."""

import ctypes
import sys
import threading
import time
from typing import Any

import psutil
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor


def local(tensor: Tensor) -> Tensor:
    """A tensor, or this rank's part of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h

PERIOD = 0.001
"""Seconds between two looks at the process's memory."""


def _return_freed_memory() -> None:
    """Have glibc take blocks of tensors from the system one by one, as it does with large ones."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is not None:
        set_option(_MMAP_THRESHOLD, 2**17)


class StepMeter(Callback):
    """Measures a fit's largest memory and its last step's time.

    On GPUs memory is what torch's allocator has given out (`torch.cuda.max_memory_allocated`). On CPUs it is the
    process's own resident memory (without that of mapped files), looked at every millisecond, above what it was when
    training began, and the weights that were there by then. glibc keeps freed blocks below 32 MiB for later, a third
    of a small run's memory; while it measures, it gives them back.

    Attributes:
        bytes: at the peak, on this rank.
        seconds: of the last step.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self.seconds = 0.0
        self._process = psutil.Process()
        self._before = 0
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._began = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to look."""
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        else:
            weights = sum(local(each).nbytes for each in pl_module.parameters())
            self._before = self._held() - weights
            _return_freed_memory()
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        """Note when a step begins."""
        self._began = self._now(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        """Note how long it took."""
        self.seconds = self._now(pl_module) - self._began

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop looking."""
        if self._thread is None:
            self.bytes = torch.cuda.max_memory_allocated(pl_module.device)
        else:
            self._done.set()
            self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(PERIOD):
            self.bytes = max(self.bytes, self._held() - self._before)

    def _held(self) -> int:
        memory = self._process.memory_info()
        return memory.rss - getattr(memory, "shared", 0)

    @staticmethod
    def _now(module: LightningModule) -> float:
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        return time.perf_counter()
