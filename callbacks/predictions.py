"""Completions of `lit-pi predict`, as JSON lines."""

import json
import os
from pathlib import Path
from typing import Any, TextIO

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_pi.batches import Generated, GenerationBatch
from lit_pi.data.generation import continuation
from lit_pi.data.prompts import Prompts
from lit_pi.data.ranks import data_ranks
from lit_pi.datamodules import LongContextData
from lit_pi.errors import UserError
from lit_pi.files import beside
from lit_pi.module import LitLlama

FILE = "predictions.jsonl"
PART = "predictions.rank-{}.jsonl"
"""File of what one rank has written so far, batch by batch."""


class Predictions(Callback):
    """Writes completions to `predictions.jsonl` in the run directory, one line a prompt, in the prompts' order.

    A line has the prompt's `index` and `id`, its `prompt_tokens`, the `completion` and its `completion_tokens`, the
    `finish_reason` (`stop` at the end-of-text token, `length` at `max_new_tokens`), `temperature`, `top_p`, `seed` and
    the position `strategy`. The file appears whole, at the end. Until then each rank appends to
    `predictions.rank-R.jsonl`, whose lines are whole too, so that a run that was killed leaves what it has done.
    """

    def __init__(self) -> None:
        self._part: TextIO | None = None
        self._written = 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what will happen, and start this rank's part."""
        assert isinstance(pl_module, LitLlama)
        prompts, run = _prompts(trainer), Path(trainer.default_root_dir)
        decoding = prompts.decoding
        how = "greedily"
        if decoding.temperature:
            how = f"at temperature {decoding.temperature:g}, top_p {decoding.top_p:g}, seed {prompts.seed}"
        trainer.print(
            f"Continuing {len(prompts.samples):,} prompts of up to {max(len(s.tokens) for s in prompts.samples):,} "
            f"tokens by up to {decoding.max_new_tokens:,}, {how}, with {pl_module.position.describe()}."
        )
        run.mkdir(parents=True, exist_ok=True)
        if trainer.is_global_zero:
            for left in run.glob(PART.format("*")):
                left.unlink()
        trainer.strategy.barrier()
        self._part, self._written = (run / PART.format(trainer.global_rank)).open("x", encoding="utf-8"), 0

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: GenerationBatch, *indices: int
    ) -> None:
        """Append the batch's completions."""
        assert isinstance(pl_module, LitLlama) and isinstance(outputs, Generated) and self._part is not None
        if data_ranks(trainer).repeats:
            return
        prompts, tokenizer = _prompts(trainer), _data(trainer).tokenizer
        lines = []
        for row, index in enumerate(batch.documents.tolist()):
            if index < 0:
                continue
            prompt, new = prompts.samples[index].tokens.tolist(), int(outputs.lengths[row])
            line = {
                "index": index,
                "id": prompts.ids[index],
                "prompt_tokens": len(prompt),
                "completion": continuation(tokenizer, prompt, outputs.token_ids[row, :new].tolist()),
                "completion_tokens": new,
                "finish_reason": "stop" if outputs.stopped[row] else "length",
                "temperature": prompts.temperature,
                "top_p": prompts.top_p,
                "seed": prompts.seed,
                "strategy": pl_module.position.describe(),
            }
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        self._part.write("".join(lines))
        self._part.flush()
        os.fsync(self._part.fileno())
        self._written += len(lines)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge the ranks' parts.

        Raises:
            UserError: rank 0 cannot see all of them.
        """
        assert self._part is not None
        self._part.close()
        self._part = None
        written = trainer.strategy.reduce(torch.tensor(self._written, device=pl_module.device), reduce_op="sum")
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            _merge(Path(trainer.default_root_dir), int(written))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close this rank's part."""
        if self._part is not None:
            self._part.close()
            self._part = None


def _merge(run: Path, expected: int) -> None:
    parts = sorted(run.glob(PART.format("*")))
    lines = [line for part in parts for line in part.read_text(encoding="utf-8").split("\n") if line]
    if len(lines) != expected:
        raise UserError(
            f"{run} holds {len(lines)} of {expected} completions, other nodes have written theirs to their own disks: "
            "name a shared directory in trainer.default_root_dir"
        )
    lines.sort(key=lambda line: json.loads(line)["index"])
    with beside(run / FILE) as partial:
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for part in parts:
        part.unlink()


def _prompts(trainer: Trainer) -> Prompts:
    prompts = _data(trainer).predict
    assert prompts is not None
    return prompts


def _data(trainer: Trainer) -> LongContextData:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, LongContextData)
    return data
