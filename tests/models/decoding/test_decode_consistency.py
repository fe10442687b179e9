"""A full pass and a cache agree for every strategy, and a cache that is wrong does not go unnoticed."""

from typing import Any

import pytest
import torch
from prompts import batch_of
from strategies import IN_MODELS
from transformers import AutoModelForCausalLM, LlamaConfig

from lit_pi.batches import GenerationBatch
from lit_pi.evaluations.decoding.differences import tolerance_of
from lit_pi.models import LanguageModel
from lit_pi.models.attention.attend import ATTENTION
from lit_pi.models.decoding.decode_consistency import score_both_ways
from lit_pi.models.past import Past
from lit_pi.positions import DynamicNTK, Interpolate, PositionStrategy, Rope, YaRN

TINY = LlamaConfig(
    vocab_size=97, hidden_size=128, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, max_position_embeddings=64, initializer_range=0.1,
)  # fmt: skip
LENGTHS, STEPS, CONTEXT = (70, 5, 52), 12, 90
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def model_of(position: PositionStrategy, dtype: torch.dtype) -> LanguageModel:
    torch.manual_seed(0)
    llm = AutoModelForCausalLM.from_config(TINY, attn_implementation=ATTENTION)
    return LanguageModel(llm.to(dtype).eval(), position, Rope(64, 1e4, 64))


def windows() -> GenerationBatch:
    generator = torch.Generator().manual_seed(1)
    batch = batch_of([torch.randint(0, 97, (n,), generator=generator).tolist() for n in LENGTHS], STEPS)
    targets = torch.randint(0, 97, (len(LENGTHS), STEPS), generator=generator)
    return batch._replace(context_lengths=torch.full((len(LENGTHS),), CONTEXT), targets=targets)


def largest(model: LanguageModel) -> float:
    found = score_both_ways(model, windows())
    return float((found.decoded_nll - found.token_nll).abs().max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("position", IN_MODELS.values(), ids=IN_MODELS)
def test_every_strategy_decodes_what_a_full_pass_scores(position: PositionStrategy, dtype: str) -> None:
    model, batch = model_of(position, DTYPES[dtype]), windows()
    found = score_both_ways(model, batch)
    assert found.token_nll.shape == found.decoded_nll.shape == (3, STEPS)
    assert largest(model) <= tolerance_of(dtype) / 10
    for row, length in enumerate(LENGTHS):
        ids = torch.cat((batch.input_ids[row, :length], batch.targets[row]))[None]
        model.rotary.context_length = CONTEXT
        with torch.no_grad():
            logits = model.llm(ids, use_cache=False).logits[0, length - 1 : -1]
        expected = -logits.log_softmax(-1).gather(1, batch.targets[row][:, None])[:, 0]
        torch.testing.assert_close(found.token_nll[row], expected, rtol=0, atol=1e-5)
    assert found.token_nll.std() > 0.05


def follow_the_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens after a short prompt stand where the longest one ends."""
    start = Past.__init__

    def padded(self: Past, lengths: torch.Tensor, columns: int, *args: Any) -> None:
        start(self, lengths, columns, *args)
        self.position_ids = torch.arange(self.position_ids.shape[1]).expand_as(self.position_ids)

    monkeypatch.setattr(Past, "__init__", padded)


def grow_with_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Angles of each step's own length, while the cache keeps keys with those of the steps before."""
    read = LanguageModel.read

    def growing(self: LanguageModel, input_ids: torch.Tensor, past: Past, *args: Any) -> torch.Tensor:
        past.context_length = past.read + input_ids.shape[1]
        return read(self, input_ids, past, *args)

    monkeypatch.setattr(LanguageModel, "read", growing)


def forget_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of the prompt are turned as if the strategy were not there."""
    read = LanguageModel.read

    def unscaled(self: LanguageModel, input_ids: torch.Tensor, past: Past, *args: Any) -> torch.Tensor:
        places, kept = past.position_ids, past.position_ids
        past.position_ids = places if past.read else places * 4
        logits = read(self, input_ids, past, *args)
        past.position_ids = kept
        return logits

    monkeypatch.setattr(LanguageModel, "read", unscaled)


@pytest.mark.parametrize(
    ("position", "damage"),
    [
        (YaRN(scale=4), follow_the_padding),
        (DynamicNTK(scale=4), grow_with_the_text),
        (Interpolate(4), forget_the_scale),
    ],
    ids=["places", "lengths", "scale"],
)
def test_keys_with_wrong_angles_are_noticed(
    position: PositionStrategy, damage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(position, torch.float32)
    assert largest(model) < tolerance_of("float32")
    damage(monkeypatch)
    assert largest(model) > 3 * tolerance_of("float32")
