"""LitLlama under a real Trainer, against stock transformers."""

import contextlib
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

from lit_pi.batches import IGNORE, ScoringBatch, Span, TrainingBatch
from lit_pi.models import FromScratch
from lit_pi.module import LitLlama
from lit_pi.positions import Extrapolate, Interpolate, PositionStrategy, Rope

TINY: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
}
SEQ = 64


def trainer(**kwargs: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", devices=1, enable_model_summary=False, **quiet, **kwargs)


def batches_of(batch: Any, count: int = 1) -> DataLoader:
    return DataLoader([batch] * count, batch_size=None)


class OneStep(LitLlama):
    """Keeps the loss and the gradients of its step."""

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> torch.Tensor:
        self.loss = super().training_step(batch, batch_idx)
        return self.loss

    def on_after_backward(self) -> None:
        self.gradients = {name: p.grad.clone() for name, p in self.model.llm.named_parameters()}


@pytest.mark.parametrize("position", [Extrapolate(), Interpolate(scale=2)], ids=["default", "linear"])
@pytest.mark.parametrize(("precision", "tolerance"), [("32-true", 1e-6), ("bf16-true", 2e-2), ("bf16-mixed", 2e-2)])
@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_loss_and_gradients_equal_stock_transformers(
    position: PositionStrategy, precision: str, tolerance: float
) -> None:
    tokens = torch.randint(0, 97, (2, SEQ + 1), generator=torch.Generator().manual_seed(1))
    targets = tokens[:, 1:].clone()
    targets[1, 50:] = IGNORE
    batch = TrainingBatch(tokens[:, :-1], targets, torch.arange(SEQ).expand(2, -1), None)
    torch.manual_seed(0)
    module = OneStep(FromScratch(config=TINY), position)
    trainer(max_steps=1, precision=precision, limit_val_batches=0).fit(module, batches_of(batch))

    torch.manual_seed(0)
    config = LlamaConfig(**TINY, rope_parameters=position.rope_parameters(Rope(8, 1e4, 32)))
    dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    stock = LlamaForCausalLM._from_config(config, dtype=dtype)
    mixed = torch.autocast("cpu", torch.bfloat16) if precision == "bf16-mixed" else contextlib.nullcontext()
    with mixed:
        logits = stock(tokens[:, :-1], use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
    loss.backward()

    torch.testing.assert_close(module.loss, loss, rtol=tolerance, atol=0)
    assert module.gradients.keys() == dict(stock.named_parameters()).keys()
    for name, parameter in stock.named_parameters():
        scale = float(parameter.grad.abs().max())
        torch.testing.assert_close(module.gradients[name], parameter.grad, rtol=0, atol=tolerance * scale)


def windows(context_lengths: list[int]) -> ScoringBatch:
    """Three windows, one of them short, whose last four positions of each context length are scored."""
    longest = max(context_lengths)
    ids = torch.randint(0, 97, (3, longest + 1), generator=torch.Generator().manual_seed(2))
    scored = torch.cat([torch.arange(length - 4, length) for length in context_lengths])
    targets = ids[:, 1:][:, scored].clone()
    lengths = torch.tensor([longest, longest - 3, longest])
    targets[scored.expand(3, -1) >= lengths[:, None] - 1] = IGNORE
    return ScoringBatch(
        evaluation="windows",
        input_ids=ids[:, :-1],
        lengths=lengths,
        scored=scored,
        targets=targets,
        spans=tuple(Span(length, 4 * i, 4 * i + 4) for i, length in enumerate(context_lengths)),
        documents=torch.zeros(3, dtype=torch.long),
        begins=torch.zeros(3, dtype=torch.long),
    )


class LengthDependent(Extrapolate):
    """Interpolates by as much as the sequence at hand needs."""

    @property
    def prefix_consistent(self) -> bool:
        return False

    def inv_freq(self, rope: Rope, context_length: int) -> torch.Tensor:
        return rope.inv_freq() / max(1.0, context_length / rope.original_context)


class Liar(LengthDependent):
    """Says that it is prefix consistent, and is not."""

    @property
    def prefix_consistent(self) -> bool:
        return True


class Scores(LitLlama):
    """Keeps the last scores and counts forwards."""

    forwards = 0

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.forwards += 1
        return super().forward(*args, **kwargs)

    def test_step(self, batch: ScoringBatch, *indices: int) -> dict[str, Any]:
        self.scores = super().test_step(batch, *indices)["token_nll"]
        return {"token_nll": self.scores}


def expected_scores(module: LightningModule, position: PositionStrategy, batch: ScoringBatch) -> list[torch.Tensor]:
    """Every row and span with a model of its own, cut to exactly the window's positions."""
    spans = []
    for span in batch.spans:
        rows = torch.zeros(3, span.stop - span.start, dtype=torch.float64)
        for row in range(3):
            length = min(int(batch.lengths[row]), span.context_length)
            factor = float(position.inv_freq(Rope(8, 1e4, 32), length)[0])
            parameters = {"rope_type": "linear", "factor": 1 / factor, "rope_theta": 1e4}
            stock = LlamaForCausalLM(LlamaConfig(**TINY, rope_parameters=parameters)).double().eval()
            stock.load_state_dict(module.model.llm.state_dict())
            with torch.no_grad():
                log_probabilities = stock(batch.input_ids[row, None, :length]).logits[0].log_softmax(-1)
            for column in range(span.start, span.stop):
                if batch.targets[row, column] != IGNORE:
                    at = log_probabilities[batch.scored[column], batch.targets[row, column]]
                    rows[row, column - span.start] = -at
        spans.append(rows)
    return spans


@pytest.mark.parametrize(
    ("position", "forwards"),
    [(Extrapolate(), 1), (Interpolate(scale=4), 1), (LengthDependent(), 9)],
    ids=["extrapolate", "interpolate", "length-dependent"],
)
def test_one_forward_or_one_each_gives_every_span_its_own_score(position: PositionStrategy, forwards: int) -> None:
    batch = windows([16, 40, 64])
    module = Scores(FromScratch(config=TINY), position)
    trainer(precision="64-true").test(module, batches_of(batch), verbose=False)
    for found, expected in zip(module.scores, expected_scores(module, position, batch), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert module.forwards == forwards


def test_a_strategy_that_is_not_as_consistent_as_it_says_is_found_out() -> None:
    batch = windows([16, 64])
    module = Scores(FromScratch(config=TINY), Liar())
    with pytest.warns(UserWarning, match="Liar says that it is prefix consistent"):
        trainer(precision="64-true").test(module, batches_of(batch), verbose=False)
    for found, expected in zip(module.scores, expected_scores(module, LengthDependent(), batch), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "32-true"])
def test_scores_and_losses_are_float32_under_every_precision(precision: str) -> None:
    module = Scores(FromScratch(config=TINY), Extrapolate())
    trainer(precision=precision).test(module, batches_of(windows([16, 64])), verbose=False)
    assert {scores.dtype for scores in module.scores} == {torch.float32}
