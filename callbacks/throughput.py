"""The speed of training, and how close it comes to the device's limit."""

import json
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from lit_pi.batches import TrainingBatch
from lit_pi.data.ranks import data_ranks
from lit_pi.files import beside
from lit_pi.models.training.flop import CONVENTION, Flop
from lit_pi.module import LitLlama
from lit_pi.planning.ledger import Work
from lit_pi.planning.rates import rates

FILE = "throughput.json"

WARM_UP = 3
"""Steps that compile, allocate and measure: they are not counted."""

Instant = torch.cuda.Event | float
"""An event on a GPU's stream, which holds nothing up, or seconds."""


class Step(NamedTuple):
    """One optimizer step on this rank.

    Attributes:
        spans: when it began and ended; several where it was interrupted.
        tokens: tokens of its batches.
        seen_keys: keys that its queries saw, on the device.
        waited: seconds in which there was no batch.
    """

    spans: list[tuple[Instant, Instant]]
    tokens: int
    seen_keys: Tensor
    waited: float


class Throughput(Callback):
    """Measures training steps without holding the device up, and logs every `trainer.log_every_n_steps`.

    Tokens a second of all devices, also in the progress bar; model FLOP/s of a device (6N + 6LhqT a token, causal
    attention at half, nothing computed again credited) and its share of the rate at which a GPU multiplies the model's
    own matrices, measured when training starts (MFU); seconds that a step waited for data; the largest memory in GiB.
    Validation and checkpoints are left out. `throughput.json` has medians over the steps after the first 3.
    """

    def __init__(self) -> None:
        self._new: list[Step] = []
        self._measured: list[dict[str, float]] = []
        self._start: Instant | None = None
        self._spans: list[tuple[Instant, Instant]] = []
        self._ended: float | None = None
        self._tokens = self._seen = self._step = 0
        self._seen_keys: Tensor | int = 0
        self._waited = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure how fast the device multiplies."""
        assert isinstance(pl_module, LitLlama) and pl_module.model is not None
        self._flop = Flop(pl_module.model)
        self._step = trainer.global_step
        self._rate = 0.0
        if pl_module.device.type == "cuda":
            config, head_dim = pl_module.model.llm.config, pl_module.model.head_dim
            tokens = trainer.datamodule.context_length  # type: ignore[attr-defined]
            self._rate = rates(config, head_dim, tokens, pl_module.compute_dtype, pl_module.device)[Work.PRODUCTS]
            rank_zero_info(f"The device multiplies the model's matrices at {self._rate / 1e12:,.0f} TFLOP/s.")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: TrainingBatch, batch_idx: int
    ) -> None:
        """Note what the batch holds, and how long there was none."""
        self._start = self._start or _now(pl_module)
        self._waited += time.perf_counter() - self._ended if self._ended else 0.0
        self._tokens += batch.input_ids.numel()
        self._seen_keys = self._seen_keys + (batch.position_ids + 1).sum()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: TrainingBatch, batch_idx: int
    ) -> None:
        """Note the end of an optimizer step, and log when it is time."""
        self._ended = time.perf_counter()
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        assert isinstance(self._seen_keys, Tensor)
        stop = _now(pl_module)
        if self._start is not None:  # else a callback before this one has saved at this step
            self._spans.append((self._start, stop))
        self._new.append(Step(self._spans, self._tokens, self._seen_keys, self._waited))
        self._start, self._spans, self._tokens, self._seen_keys, self._waited = stop, [], 0, 0, 0.0
        if (every := trainer.log_every_n_steps) and trainer.global_step % every == 0:  # type: ignore[attr-defined]
            pl_module.log("tokens/s", self._log(trainer, pl_module), prog_bar=True, logger=False)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out what validation takes."""
        self._interrupt(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Leave out what saving takes."""
        self._interrupt(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write medians into the run directory."""
        assert isinstance(pl_module, LitLlama)
        self._log(trainer, pl_module)
        if not (self._measured and trainer.is_global_zero):
            return
        record = {
            "step": trainer.global_step, "steps": len(self._measured), **_peak(pl_module),
            **{name: statistics.median(step[name] for step in self._measured) for name in self._measured[0]},
            "step_seconds": [step["seconds"] for step in self._measured],
            "matrix_products_flop_per_second": self._rate or None,
            "convention": CONVENTION, "devices": trainer.world_size,
            "protocol": pl_module.describe(),
        }  # fmt: skip
        with beside(Path(trainer.default_root_dir) / FILE) as partial:
            partial.write_text(json.dumps(record, indent=2))

    def _interrupt(self, module: LightningModule) -> None:
        if self._start is not None and self._tokens:  # amid the batches of a step
            self._spans.append((self._start, _now(module)))
        self._start = self._ended = None

    def _log(self, trainer: Trainer, module: LightningModule) -> float:
        """Log means over the steps since the last time; tokens a second, 0 while they are warming up."""
        found = [self._measure(step, trainer) for step in self._new]
        skipped = max(WARM_UP - self._seen, 0)
        self._seen += len(found)
        self._new, found = [], found[skipped:]
        self._measured += found
        if not found:
            return 0.0
        means = {name: statistics.mean(step[name] for step in found) for name in found[0]} | _peak(module)
        for logger in trainer.loggers:
            logger.log_metrics({f"throughput/{name}": value for name, value in means.items()}, trainer.global_step)
        return means["tokens_per_second"]

    def _measure(self, step: Step, trainer: Trainer) -> dict[str, float]:
        seconds, streams = sum(_seconds(start, stop) for start, stop in step.spans), data_ranks(trainer).size
        rate = self._flop.step(step.tokens, int(step.seen_keys)) * streams / trainer.world_size / seconds
        found = {"tokens_per_second": step.tokens * streams / seconds, "seconds": seconds, "flop_per_second": rate}
        return found | {"waited_seconds": step.waited} | ({"mfu": rate / self._rate} if self._rate else {})


def _peak(module: LightningModule) -> dict[str, float]:
    on_gpu = module.device.type == "cuda"
    return {"peak_gib": torch.cuda.max_memory_allocated(module.device) / 2**30} if on_gpu else {}


def _now(module: LightningModule) -> Instant:
    if module.device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _seconds(start: Instant, stop: Instant) -> float:
    if isinstance(start, torch.cuda.Event) and isinstance(stop, torch.cuda.Event):
        stop.synchronize()
        return start.elapsed_time(stop) / 1000
    assert isinstance(start, float) and isinstance(stop, float)
    return stop - start
