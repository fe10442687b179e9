"""Where the time of a training step goes on a GPU: a callback that profiles two steps of `lit-pi fit`.

PYTHONPATH=benchmarks lit-pi fit ... --trainer.callbacks+=kernel_shares.KernelShares
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.profiler import ProfilerActivity, profile

KINDS = {
    "attention": ("flash", "fmha", "sdpa", "flex", "attention"),
    "optimizer": ("adam",),
    "matrix products": ("gemm", "nvjet", "cutlass", "cublas", "splitk", "_mm", "s16816", "wgmma"),
    "copies": ("memcpy", "memset"),
}
"""Words in the names of kernels, in the order of their trial; all others work element by element."""

WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaHostAlloc", "aten::item")


class KernelShares(Callback):
    """Profiles two steps and writes `kernels.json` into the run directory.

    Args:
        step: the first of them.
    """

    def __init__(self, step: int = 6) -> None:
        self.step = step
        self._profile: profile | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        """Start."""
        if self._profile is None and trainer.global_step == self.step:
            torch.cuda.synchronize()
            self._profile = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
            self._profile.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        """Stop after two steps."""
        if self._profile is None or trainer.global_step != self.step + 2:
            return
        torch.cuda.synchronize()
        self._profile.stop()
        events = self._profile.events()
        record = shares(
            [
                event
                for event in events
                if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation
            ]
        )
        waits = Counter(event.name for event in events if event.name.startswith(WAITS))
        seconds: Counter[str] = Counter()
        for event in events:
            if event.name.startswith(WAITS):
                seconds[event.name] += event.cpu_time_total / 1e6
        record["waits"] = {name: {"count": waits[name], "seconds": seconds[name]} for name in waits}
        Path(trainer.default_root_dir, "kernels.json").write_text(json.dumps(record, indent=1))
        print(json.dumps({key: value for key, value in record.items() if key != "kernels"}, indent=1))


def shares(kernels: list[Any]) -> dict[str, Any]:
    """Seconds by kind, and those in which no kernel ran."""
    spans = sorted((event.time_range.start, event.time_range.end) for event in kernels)
    busy, reached = 0.0, spans[0][0]
    for start, stop in spans:
        busy += max(stop - max(start, reached), 0)
        reached = max(reached, stop)
    by_kind: Counter[str] = Counter()
    by_name: Counter[str] = Counter()
    for event in kernels:
        took = event.time_range.elapsed_us() / 1e6
        by_kind[kind_of(event.name)] += took
        by_name[event.name] += took
    span = (reached - spans[0][0]) / 1e6
    by_kind["idle"] = span - busy / 1e6
    return {
        "seconds": span,
        "shares": {kind: round(took / span, 4) for kind, took in by_kind.most_common()},
        "kernels": dict(by_name.most_common(40)),
    }


def kind_of(name: str) -> str:
    """What a kernel does, as its name tells."""
    words = name.lower()
    return next((kind for kind, found in KINDS.items() if any(word in words for word in found)), "element by element")
