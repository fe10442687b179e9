"""Bounds measured in a running model, against all scores of stock transformers."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from lit_pi import theory
from lit_pi.callbacks import AttentionBounds, Measurements
from lit_pi.data.corpora import TextFiles
from lit_pi.datamodules import LongContextData
from lit_pi.evaluations import Perplexity
from lit_pi.models import Pretrained
from lit_pi.module import LitLlama
from lit_pi.positions import DynamicNTK, Extrapolate, Interpolate, PositionStrategy, Rope, SelfExtend

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*")

LENGTH, ORIGINAL = 96, 32
TEXT = bytes((7 * place * place + 3 * place) % 90 + 32 for place in range(LENGTH - 1))
FIELDS: dict[str, Any] = {
    "vocab_size": 264, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": ORIGINAL,
}  # fmt: skip


def measured(folder: Path, config: PreTrainedConfig, position: PositionStrategy, **options: int) -> dict[str, Any]:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    (folder / "text.txt").write_bytes(TEXT)
    evaluation = Perplexity(TextFiles(test=str(folder / "text.txt")), context_lengths=[ORIGINAL, LENGTH], stride=16)
    trainer = Trainer(
        accelerator="cpu", devices=1, default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, callbacks=[AttentionBounds(**options), Measurements()],
    )  # fmt: skip
    module = LitLlama(Pretrained(str(folder / "model")), position)
    trainer.test(module, LongContextData(evaluations={"text": evaluation}), verbose=False)
    records = json.loads((folder / "results.json").read_text())["records"]
    (record,) = [record for record in records if record["kind"] == "attention_bounds"]
    assert len(records) == 2
    return record


def all_scores(folder: Path, position: PositionStrategy) -> list[torch.Tensor]:
    """Every layer's scores `[heads, queries, keys]` in stock transformers."""
    rope_parameters = position.rope_parameters(Rope(8, 1e4, ORIGINAL))
    stock = AutoModelForCausalLM.from_pretrained(folder / "model", rope_parameters=rope_parameters).eval()
    rotary, scores = LlamaRotaryEmbedding(stock.config), []

    def keep(attention: torch.nn.Module, arguments: tuple, inputs: dict) -> None:
        hidden = inputs["hidden_states"]
        query, key = (projection(hidden).unflatten(-1, (-1, 8)) for projection in (attention.q_proj, attention.k_proj))
        if hasattr(attention, "q_norm"):
            query, key = attention.q_norm(query), attention.k_norm(key)
        cos, sin = rotary(hidden, torch.arange(hidden.shape[1])[None])
        query, key = apply_rotary_pos_emb(query.transpose(1, 2), key.transpose(1, 2), cos, sin)
        scores.append((query @ key.repeat_interleave(2, dim=1).mT)[0] / math.sqrt(8))

    for layer in stock.model.layers:
        layer.self_attn.register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        stock(torch.tensor([[256, *TEXT]]))
    return scores


@pytest.mark.parametrize("config", [LlamaConfig(**FIELDS), Qwen3Config(**FIELDS)], ids=["llama", "qwen3"])
@pytest.mark.parametrize("position", [Extrapolate(), Interpolate(scale=3), DynamicNTK(scale=2)], ids=type)
def test_score_ranges_are_those_of_all_scores(
    config: PreTrainedConfig, position: PositionStrategy, tmp_path: Path
) -> None:
    record = measured(tmp_path, config, position, rows=LENGTH)
    distance = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)
    for layer, scores in zip(record["layers"], all_scores(tmp_path, position), strict=True):
        within, beyond = (distance >= 0) & (distance < ORIGINAL), distance >= ORIGINAL
        assert layer["score_within"] == pytest.approx(float(scores[:, within].abs().max()), rel=1e-4)
        assert layer["score_beyond"] == pytest.approx(float(scores[:, beyond].abs().max()), rel=1e-4)
    assert record["context_length"] == LENGTH


@pytest.mark.parametrize("position", [Interpolate(scale=3), SelfExtend(4, 8)], ids=type)
def test_errors_stay_within_their_bounds(position: PositionStrategy, tmp_path: Path) -> None:
    record = measured(tmp_path, LlamaConfig(**FIELDS), position)
    assert len(record["layers"]) == 2
    for layer in record["layers"]:
        assert 0 < layer["interpolation_error"] <= layer["interpolation_bound"]
        assert 0.3 < layer["largest_share"] <= 1
        assert layer["score_beyond"] > 0


def test_the_frequencies_that_leave_pre_training_are_named(tmp_path: Path) -> None:
    rope = Rope(64, 1e4, 2048)
    turns = [2047 * frequency / (2 * math.pi) for frequency in rope.inv_freq().tolist()]
    slow = [index for index, turn in enumerate(turns) if turn < 1]
    for position, length, expected in (
        (Extrapolate(), 2048, []),
        (Extrapolate(), 2049, slow),
        (Interpolate(scale=4), 8189, []),
        (Interpolate(scale=4), 8192 + 2, slow),
    ):
        found = theory.unseen_frequencies(position.inv_freq(rope, length), rope, length)
        assert found.nonzero()[:, 0].tolist() == expected, (position, length)
    record = measured(tmp_path, LlamaConfig(**FIELDS), Extrapolate())
    assert record["unseen_frequencies"] == [1, 2, 3]
