"""A step learns the mean over all its targets, however it is cut into micro-batches."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

from lit_pi.batches import IGNORE, TrainingBatch
from lit_pi.models import LoRA, Pretrained
from lit_pi.module import LitLlama
from lit_pi.positions import Extrapolate

pytestmark = pytest.mark.filterwarnings("ignore")

LENGTHS = (61, 5, 40, 1, 17, 64, 9, 30)
"""Tokens of the documents of a step."""

PROMPT = 4
"""Tokens of a document that are read and not learnt; the document of one token has no target left."""

Rows = list[TrainingBatch]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder := tmp_path_factory.mktemp("base"))
    return folder


def documents() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Ids and targets of each."""
    found = []
    for number, length in enumerate(LENGTHS):
        ids = torch.randint(0, 97, (length + 1,), generator=torch.Generator().manual_seed(number))
        targets = ids[1:].clone()
        targets[:PROMPT] = IGNORE
        found.append((ids[:-1], targets))
    return found


def singly() -> Rows:
    """A document a row, padded."""
    rows = []
    for ids, targets in documents():
        row = torch.zeros(1, 64, dtype=torch.long), torch.full((1, 64), IGNORE)
        row[0][0, : len(ids)], row[1][0, : len(ids)] = ids, targets
        rows.append(TrainingBatch(*row, torch.arange(64)[None], torch.zeros(1, 64, dtype=torch.long)))
    return rows


def packed() -> Rows:
    """The same documents, several in most rows, of unequal numbers of targets."""
    rows, texts = [], documents()
    for numbers in ([0], [1, 2, 6], [5], [3, 4, 7]):
        ids, targets, places, owners = [], [], [], []
        for number in numbers:
            ids.append(texts[number][0])
            targets.append(texts[number][1])
            places.append(torch.arange(len(ids[-1])))
            owners.append(torch.full_like(places[-1], number))
        fill = 64 - sum(map(len, ids))
        ids.append(torch.zeros(fill, dtype=torch.long))
        targets.append(torch.full((fill,), IGNORE))
        places.append(torch.arange(fill))
        owners.append(torch.full((fill,), -1))
        rows.append(TrainingBatch(*(torch.cat(parts)[None] for parts in (ids, targets, places, owners))))
    return rows


class Seen(Callback):
    """Gradients as other callbacks see them, and the loss that is logged."""

    gradients: dict[str, torch.Tensor]
    weights: dict[str, torch.Tensor]
    loss: float

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self.gradients = {
            name: parameter.grad.clone() for name, parameter in module.named_parameters() if parameter.grad is not None
        }

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        self.loss = float(trainer.callback_metrics["train/loss"])


def together(rows: Rows) -> TrainingBatch:
    tensors = (row[:-1] for row in rows)  # without the digest
    return TrainingBatch(*map(torch.cat, zip(*tensors, strict=True)))  # type: ignore[arg-type]


def learnt(base: Path, rows: Rows, cut: tuple[int, int], adapter: LoRA | None = None, **options: Any) -> Seen:
    """What a step of plain SGD saw, and the weights after it, of rows in micro-batches of so many each."""
    torch.manual_seed(0)
    module = LitLlama(
        Pretrained(str(base)),
        Extrapolate(),
        optimizer=lambda parameters: SGD(parameters, lr=1.0),
        scheduler=lambda optimizer: ConstantLR(optimizer, factor=1),
        adapter=adapter,
    )
    trainer = Trainer(
        accelerator="cpu", max_steps=1, accumulate_grad_batches=cut[1], callbacks=[seen := Seen()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        **{"precision": "64-true", **options},
    )  # fmt: skip
    trainer.fit(module, DataLoader(rows, batch_size=cut[0], collate_fn=together))  # type: ignore[arg-type]
    seen.weights = {name: weight.detach().clone() for name, weight in module.named_parameters() if weight.requires_grad}
    return seen


@pytest.fixture(scope="module")
def expected(base: Path) -> tuple[float, dict[str, torch.Tensor]]:
    """The mean over all targets by stock transformers, a document at a time, and its gradients."""
    llm = LlamaForCausalLM.from_pretrained(base).double()
    nll = torch.stack([
        cross_entropy(llm(input_ids=ids[None]).logits[0], targets, reduction="sum", ignore_index=IGNORE)
        for ids, targets in documents()
    ])  # fmt: skip
    loss = nll.sum() / sum(int((targets != IGNORE).sum()) for _, targets in documents())
    loss.backward()
    return float(loss), {f"model.llm.{name}": weight.grad for name, weight in llm.named_parameters()}  # type: ignore[misc]


CUTS = {
    "8 x 1": (singly, (8, 1)),
    "4 x 2": (singly, (4, 2)),
    "1 x 8": (singly, (1, 8)),
    "3 x 3, the last of them short": (singly, (3, 3)),
    "2 x 9, of which an epoch has 4": (singly, (2, 9)),
    "packed, 4 x 1": (packed, (4, 1)),
    "packed, 1 x 4": (packed, (1, 4)),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_step_is_the_mean_over_its_targets(
    cut: str, base: Path, expected: tuple[float, dict[str, torch.Tensor]]
) -> None:
    rows, size = CUTS[cut]
    seen = learnt(base, rows(), size)
    assert seen.loss == pytest.approx(expected[0], rel=1e-6)  # Lightning keeps what is logged in float32
    for name, gradient in expected[1].items():
        # LLaMA's norms round to float32, and stock transformers divides by another number before.
        torch.testing.assert_close(seen.gradients[name], gradient, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({}, 1e-12),
        ({"gradient_clip_val": 0.01}, 1e-12),
        ({"adapter": LoRA(2)}, 1e-12),
        ({"precision": "32-true"}, 1e-5),
    ],
    ids=["float64", "clipped", "adapter", "float32"],
)
def test_every_cut_gives_the_same_weights(options: dict[str, Any], tolerance: float, base: Path) -> None:
    whole, *others = (learnt(base, singly(), cut, **options) for cut in ((8, 1), (2, 4), (3, 3)))
    for seen in others:
        assert max(gradient.abs().max() for gradient in seen.gradients.values()) > 1e-3
        for found, right in ((seen.gradients, whole.gradients), (seen.weights, whole.weights)):
            for name, tensor in found.items():
                torch.testing.assert_close(tensor, right[name], rtol=0, atol=tolerance)
