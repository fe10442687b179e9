"""Training and evaluation that two sharded processes and a plain one do alike."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from strategies import IN_MODELS
from torch import distributed
from torch.optim import AdamW

from lit_pi.batches import ScoringBatch
from lit_pi.callbacks import Checkpoint
from lit_pi.data.corpora import TextFiles
from lit_pi.datamodules import LongContextData
from lit_pi.errors import UserError
from lit_pi.evaluations import Perplexity
from lit_pi.models import FromScratch, LoRA, Pretrained
from lit_pi.module import LitLlama
from lit_pi.parallel import FSDP2
from lit_pi.parallel.checkpoint_io import AtomicCheckpointIO
from lit_pi.positions import FromConfig

MODEL = FromScratch(
    config={
        "vocab_size": 264, "hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 64,
    }
)  # fmt: skip
ADAPTED = ["interpolate", "dynamic-ntk", "self-extend"]
WINDOW = "window"
"""The run of a model with windows (Mistral's), which lies in this folder of the base's."""
RUNS = [*IN_MODELS, *(f"{name} adapter" for name in ADAPTED), WINDOW]
OFFLOADED = ["yarn", "interpolate adapter"]
CONTEXTS = [64, 128]
CUT, END = 2, 4
"""Steps after which a run is stopped, and after which it is over."""
ADAMW = {"lr": 0.01, "eps": 1e-3}
"""With AdamW's own 1e-8, gradients that are rounding (4e-8 where others are 7e-3) move weights like any other."""


class Record(Callback):
    """Losses of this process's steps in nats a token, and its sums of scores in nats by context length."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.sums = torch.zeros(len(CONTEXTS), dtype=torch.float64)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if (index + 1) % trainer.accumulate_grad_batches == 0:
            self.losses.append(float(trainer.callback_metrics["train/loss"]))

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ScoringBatch, *rest: Any
    ) -> None:
        self.sums += torch.stack([scores.double().sum() for scores in outputs["token_nll"]])


def module(name: str, base: Path) -> LitLlama:
    seed_everything(0, verbose=False)
    strategy, _, adapter = name.partition(" ")
    from_disk = Pretrained(str(base / WINDOW if name == WINDOW else base))
    return LitLlama(
        from_disk if adapter or name == WINDOW else MODEL,
        FromConfig() if name == WINDOW else IN_MODELS[strategy],
        optimizer=lambda parameters: AdamW(parameters, **ADAMW),
        adapter=LoRA(4) if adapter else None,
    )


def trainer(folder: Path, steps: int = END, ranks: int = 1, offload: bool = False) -> tuple[Trainer, Record]:
    record = Record()
    return Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy=FSDP2(compute_dtype="float32", cpu_offload=offload) if ranks > 1 else "auto",
        max_steps=steps,
        accumulate_grad_batches=ranks,
        gradient_clip_val=0.5,
        limit_val_batches=0,
        callbacks=[
            record,
            Checkpoint(dirpath=folder, filename="{step}", every_n_train_steps=CUT, save_top_k=-1),
        ],
        plugins=[AtomicCheckpointIO(in_background=True)],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ), record


def data(corpus: Path, ranks: int = 1) -> LongContextData:
    scored = Perplexity(TextFiles(test=str(corpus / "test")), context_lengths=CONTEXTS, stride=48, batch_size=4)
    return LongContextData(
        TextFiles(train=str(corpus / "train")),
        {"texts": scored},
        context_length=64,
        packing="packed",
        batch_size=4 // ranks**2,
    )


def main(folder: Path, corpus: Path, base: Path, names: list[str], ranks: int = 2) -> None:
    """Fit, stop, go on and test, each with a model of its own; what a rank saw is written for each run."""
    for name in names:
        place, offload = folder / name, name in OFFLOADED
        first, seen = trainer(place, CUT, ranks, offload)
        first.fit(module(name, base), data(corpus, ranks))
        second, seen_later = trainer(place, END, ranks, offload)
        second.fit(module(name, base), data(corpus, ranks), ckpt_path=place / f"step={CUT}.ckpt")
        test, scored = trainer(place, END, ranks, offload)
        test.test(module(name, base), data(corpus, ranks), ckpt_path=place / f"step={END}.ckpt", verbose=False)
        found = {"losses": seen.losses + seen_later.losses, "sums": scored.sums.tolist()}
        (folder / f"{name}-{test.global_rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


def refused(folder: Path, corpus: Path, base: Path, name: str) -> None:
    """Go on from a checkpoint that is damaged, and write down what each rank is told."""
    going_on, _ = trainer(folder, END, ranks=2)
    try:
        going_on.fit(module(name, base), data(corpus, ranks=2), ckpt_path=folder / "damaged.ckpt")
    except UserError as error:
        (folder / f"refused-{going_on.global_rank}").write_text(str(error))
    distributed.destroy_process_group()
