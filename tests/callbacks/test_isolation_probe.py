"""The probe lets a model train that keeps documents apart, and no other."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from strategies import IN_MODELS
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lit_pi.callbacks import IsolationProbe
from lit_pi.callbacks.isolation_probe import probe
from lit_pi.data.corpora import TextFiles
from lit_pi.datamodules import LongContextData
from lit_pi.errors import UserError
from lit_pi.models import FromScratch
from lit_pi.models.attention import masks
from lit_pi.models.attention.attend import ATTENTION
from lit_pi.models.attention.masks import make_mask
from lit_pi.models.rotary import RotaryEmbedding
from lit_pi.module import LitLlama
from lit_pi.positions import Extrapolate, PoSE, PositionStrategy

CONFIG = {
    "vocab_size": 264, "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "head_dim": 64, "max_position_embeddings": 32,
}  # fmt: skip


@pytest.fixture(autouse=True)
def unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the comparison with stock transformers, which notices what the probe is to notice here."""
    monkeypatch.setattr("lit_pi.module.check_kind", lambda *arguments: None)


class Watch(Callback):
    """What the model and the random state are like when training starts."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.modes = [module.training for module in pl_module.modules()]
        self.random = torch.get_rng_state()
        self.gradients = [parameter.grad for parameter in pl_module.parameters()]


class Frozen(Callback):
    """A layer that stays in evaluation mode."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, LitLlama) and pl_module.model is not None
        pl_module.model.decoder_layers[0].eval()


def fit(
    texts: Path,
    position: PositionStrategy | None = None,
    *callbacks: Callback,
    config: dict | None = None,
    **options: Any,
) -> LitLlama:
    data = {"context_length": 64, "batch_size": 2, "seed": 0} | options
    positions, precision = data.pop("train_positions", None), data.pop("precision", "32-true")
    torch.manual_seed(0)
    trainer = Trainer(
        accelerator="cpu", devices=1, max_steps=2, limit_val_batches=0, precision=precision, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=list(callbacks) or [IsolationProbe()],
    )  # fmt: skip
    module = LitLlama(FromScratch(config=config or CONFIG), position or Extrapolate(), train_positions=positions)
    trainer.fit(module, LongContextData(TextFiles(train=str(texts / "train")), **data))
    return module


@pytest.mark.parametrize("position", IN_MODELS.values(), ids=IN_MODELS)
def test_every_strategy_passes(position: PositionStrategy, texts: Path) -> None:
    fit(texts, position)


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "64-true"])
@pytest.mark.parametrize("context_length", [8, 64])
def test_every_precision_passes(precision: str, context_length: int, texts: Path) -> None:
    fit(texts, precision=precision, context_length=context_length)


@pytest.mark.parametrize(
    ("packing", "said"),
    [
        ("packed", "documents of a sequence do not see each other, nor do sequences of a batch, and no token"),
        ("single", "sequences of a batch, each one document, do not see each other, and no token"),
        ("concatenated", "the documents of one do, as `data.packing` says, and no token sees a later one, to the bit"),
    ],
)
@pytest.mark.parametrize("train_positions", [None, PoSE(256)], ids=["contiguous", "pose"])
def test_it_says_what_it_has_shown_and_leaves_no_trace(
    packing: str, said: str, train_positions: PoSE | None, texts: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"packing": packing, "train_positions": train_positions, "config": CONFIG | {"attention_dropout": 0.5}}
    after, alone = Watch(), Watch()
    with caplog.at_level(logging.INFO):
        watched = fit(texts, None, Frozen(), IsolationProbe(), after, **options)
    assert said in caplog.text
    expected = fit(texts, None, Frozen(), alone, **options)
    assert after.modes == alone.modes
    assert after.gradients == alone.gradients
    assert torch.equal(after.random, alone.random)
    for name, parameter in watched.named_parameters():
        assert torch.equal(parameter, expected.get_parameter(name)), name


def ignoring(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, *rest: Any, **kwargs: Any) -> Any:
    """Attention that takes no mask."""
    return sdpa_attention_forward(module, query, key, value, None, *rest, **kwargs)


def looking_ahead(module: Any, *arguments: Any, **kwargs: Any) -> Any:
    """Attention that is not causal where it has no mask."""
    return sdpa_attention_forward(module, *arguments, **kwargs | {"is_causal": False})


def same_document(ids: torch.Tensor) -> torch.Tensor:
    return ids[:, None, :, None] == ids[:, None, None, :]


def late(ids: torch.Tensor, blocks: bool) -> torch.Tensor:
    """Documents that end one token late."""
    return same_document(torch.cat((ids[:, :1], ids[:, :-1]), 1)).tril()


def in_blocks(ids: torch.Tensor, blocks: bool) -> torch.Tensor:
    """The mask of the blocks of 8, as if there were none inside them."""
    mask = same_document(ids).unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).any(5).any(3)
    return mask.repeat_interleave(8, 2).repeat_interleave(8, 3).tril()


MASKS = {
    "late": (late, "document 1 of sequence 0 of a batch leaked into document 2, token"),
    "in blocks": (in_blocks, "document 1 of sequence 0 of a batch leaked into document 2, token"),
    "of another row": (lambda ids, blocks: same_document(ids.flip(0)).tril(), "leaked into document"),
    "of one row": (lambda ids, blocks: same_document(ids[-1:]).tril(), "leaked into document"),
    "not causal": (lambda ids, blocks: same_document(ids), "saw the later token .* attention is not causal"),
    "everybody alone": (lambda ids, blocks: same_document(torch.arange(64)[None]), "no later token of its own"),
}


@pytest.mark.parametrize(("mask", "said"), MASKS.values(), ids=MASKS)
def test_a_wrong_mask_stops_training(mask: Any, said: str, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(**asked: Any) -> Any:
        ids = masks._AT_HAND.get().document_ids
        return make_mask(**asked) if ids is None else mask(ids, False)

    monkeypatch.setitem(AttentionMaskInterface._global_mapping, ATTENTION, wrong)
    with pytest.raises(UserError, match=f"isolation probe: .*{said}.*training has not started: look at"):
        fit(texts)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_attention_that_ignores_the_mask_stops_training(
    precision: str, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(AttentionInterface._global_mapping, ATTENTION, ignoring)
    with pytest.raises(UserError, match="document 1 of sequence 0 of a batch leaked into document 2, token 39,"):
        fit(texts, precision=precision)
    fit(texts, packing="concatenated")  # in which it does no harm


@pytest.mark.parametrize("packing", ["single", "concatenated"])
def test_attention_that_is_not_causal_stops_training(
    packing: str, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(AttentionInterface._global_mapping, ATTENTION, looking_ahead)
    with pytest.raises(UserError, match="token 0 of a sequence saw the later token 16: attention is not causal"):
        fit(texts, packing=packing)


@pytest.mark.parametrize("packing", ["packed", "single", "concatenated"])
def test_positions_that_do_not_matter_stop_training(packing: str, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phases = RotaryEmbedding.phases

    def counted(self: RotaryEmbedding, position_ids: torch.Tensor, *more: Any) -> Any:
        return phases(self, torch.arange(position_ids.shape[1]).expand_as(position_ids), *more)

    monkeypatch.setattr(RotaryEmbedding, "phases", counted)
    with pytest.raises(UserError, match="no score notices the positions"):
        fit(texts, packing=packing)


def test_rows_that_see_each_other_stop_training(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = LitLlama.forward
    monkeypatch.setattr(LitLlama, "forward", lambda *a, **k: forward(*a, **k) + forward(*a, **k)[:1] * 1e-3)
    with pytest.raises(UserError, match="leaked into sequence 1, token"):
        fit(texts, packing="single")


def test_scores_that_are_no_numbers_stop_training(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = LitLlama.forward
    monkeypatch.setattr(LitLlama, "forward", lambda *a, **k: forward(*a, **k) * float("nan"))
    with pytest.raises(UserError, match="not finite"):
        fit(texts)


def test_another_rank_stops_training_too(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "lightning.pytorch.strategies.SingleDeviceStrategy.reduce_boolean_decision", lambda *a, **k: False
    )
    with pytest.raises(UserError, match="another rank found that tokens see what they must not"):
        fit(texts)


@pytest.mark.parametrize("seq", [8, 16, 128, 2048, 32_768])
def test_the_probe_has_uneven_documents_that_differ_between_rows(seq: int) -> None:
    batch, place = probe(4, seq, 264, True, seed=0)
    assert batch.document_ids is not None
    lengths = [torch.bincount(row).tolist() for row in batch.document_ids]
    assert all(len(set(row)) > 1 and len(row) == 4 and min(row) > 0 and sum(row) == seq for row in lengths)
    assert len(set(map(tuple, lengths))) == 4
    for row, ids in zip(batch.position_ids, batch.document_ids, strict=True):
        assert row.tolist() == [int((ids[:t] == ids[t]).sum()) for t in range(seq)] if seq <= 128 else True
    own = (batch.document_ids[0] == batch.document_ids[0, place]).nonzero()[:, 0].tolist()
    assert own[0] < place < own[-1] and own[0] > 0 and own[-1] < seq - 1
    assert torch.equal(batch.targets[:, :-1], batch.input_ids[:, 1:])
