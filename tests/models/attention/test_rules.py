"""Attention rules: every pair at the distance that the rule says, in one softmax."""

import math

import pytest
import torch
from prompts import batch_of
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen3Config

from lit_pi.models import LanguageModel
from lit_pi.models.attention import rules as rule_attention
from lit_pi.models.attention.attend import ATTENTION
from lit_pi.models.decoding.generation import generate
from lit_pi.models.past import Past
from lit_pi.positions import (
    AttentionRule,
    DynamicNTK,
    Extrapolate,
    Interpolate,
    Pass,
    PositionStrategy,
    Rope,
    SelfExtend,
)

TINY = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
TOKENS = torch.randint(0, 97, (2, 200), generator=torch.Generator().manual_seed(0))
TARGETS = TOKENS.roll(-1, 1)


def model_of(
    position: PositionStrategy, config: PreTrainedConfig | None = None, dtype: torch.dtype = torch.float64
) -> LanguageModel:
    torch.manual_seed(0)
    llm = AutoModelForCausalLM.from_config(config or LlamaConfig(**TINY), attn_implementation=ATTENTION)
    return LanguageModel(llm.to(dtype).eval(), position, Rope(8, 1e4, 64))


def score(model: LanguageModel, **arguments: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS, TARGETS, **arguments)


class Blocks(Extrapolate):
    """Distances within the last w tokens, and w beyond: ReRoPE, as one more class of a dozen lines."""

    class Rule(AttentionRule):
        def passes(self, query_positions: torch.Tensor, key_positions: torch.Tensor) -> list[Pass]:
            return [Pass(query_positions, key_positions), Pass(0 * query_positions + 16, 0 * key_positions)]

        def pass_of(self, query_positions: torch.Tensor, key_positions: torch.Tensor) -> torch.Tensor:
            return (query_positions[:, :, None] - key_positions[:, None, :] >= 16).long()

    @property
    def attention_rule(self) -> AttentionRule:
        return self.Rule()


def seen_distance(position: PositionStrategy, m: int, n: int) -> int:
    """How far a key at n seems to a query at m, from the papers' formulas."""
    if isinstance(position, SelfExtend):
        w, g = position.window, position.group_size
        return m - n if m - n < w else m // g + w - w // g - n // g
    return min(m - n, 16)


@pytest.mark.parametrize("position", [SelfExtend(4, 16), SelfExtend(3, 10), Blocks()], ids=["4-16", "3-10", "rerope"])
def test_scores_are_those_of_the_distances_that_the_rule_says(
    position: PositionStrategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule_attention, "QUERIES", 16)
    model = model_of(position)
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(1, 4, 50, 8, generator=generator, dtype=torch.float64)
    key, value = (torch.randn(1, 2, 50, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    model.rotary.position_ids = torch.arange(50)[None]
    attention = model.decoder_layers[0].self_attn
    found, _ = rule_attention.rule_attention(attention, query, key, value, None, scaling=0.3)
    inv_freq = Rope(8, 1e4, 64).inv_freq().double()
    for head in range(4):
        q, k, v = query[0, head], key[0, head // 2], value[0, head // 2]
        for m in range(50):
            scores = []
            for n in range(m + 1):
                angle = seen_distance(position, m, n) * inv_freq
                pairs = torch.complex(q[m, :4], q[m, 4:]) * torch.complex(k[n, :4], -k[n, 4:])
                scores.append(0.3 * float((pairs * torch.polar(torch.ones_like(angle), angle)).real.sum()))
            expected = torch.tensor(scores, dtype=torch.float64).softmax(0) @ v[: m + 1]
            torch.testing.assert_close(found[0, m, head], expected, rtol=0, atol=1e-5)  # angles are float32


@pytest.mark.parametrize("config", [LlamaConfig(**TINY), Qwen3Config(**TINY)], ids=["llama", "qwen3"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_inside_the_window_nothing_changes(config: PreTrainedConfig, dtype: torch.dtype, tolerance: float) -> None:
    plain = score(model_of(Extrapolate(), config, dtype))
    extended = score(model_of(SelfExtend(4, 64), config, dtype))
    torch.testing.assert_close(extended[:, :64], plain[:, :64], rtol=0, atol=tolerance)
    assert (extended[:, 80:] != plain[:, 80:]).any()
    torch.testing.assert_close(score(model_of(SelfExtend(1, 5), config, dtype)), plain, rtol=0, atol=tolerance)
    torch.testing.assert_close(score(model_of(SelfExtend(8, 200), config, dtype)), plain, rtol=0, atol=tolerance)


def test_packed_documents_stay_apart() -> None:
    model = model_of(SelfExtend(4, 16))
    position_ids = torch.cat((torch.arange(120), torch.arange(80))).expand(2, -1)
    documents = (torch.arange(200) >= 120).long().expand(2, -1)
    packed = score(model, position_ids=position_ids, document_ids=documents)
    with torch.no_grad():
        alone = model(TOKENS[:, 120:], TARGETS[:, 120:])
    torch.testing.assert_close(packed[:, 120:], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "position", [Extrapolate(), Interpolate(4), DynamicNTK(4), SelfExtend(4, 16)], ids=lambda p: type(p).__name__
)
def test_decoding_step_by_step_equals_a_full_pass_at_the_final_length(position: PositionStrategy) -> None:
    model = model_of(position)
    prompt, new = TOKENS[:, :60], 100
    generated = torch.cat((prompt, generate(model, batch_of(prompt, new)).token_ids), dim=1)
    past = Past(torch.full((2,), 60), 60, new, context_length=160)
    with torch.no_grad():
        nll = model(generated[:, :-1], generated[:, 1:], context_length=160)
        logits = [model.read(generated[:, :60], past)[:, -1:]]
        logits += [model.read(generated[:, place : place + 1], past) for place in range(60, 159)]
    step_by_step = -torch.cat(logits, dim=1).log_softmax(-1).amax(-1)
    torch.testing.assert_close(nll[:, 59:], step_by_step, rtol=0, atol=1e-6)


def test_transformers_decodes_with_keys_of_other_bases() -> None:
    """What fixing the context length avoids: stock `dynamic` keeps keys in its cache that older bases have rotated."""
    ours = model_of(DynamicNTK(4))
    config = LlamaConfig(**TINY, rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4})
    stock = AutoModelForCausalLM.from_config(config).double().eval()
    stock.load_state_dict(ours.llm.state_dict())
    tokens = TOKENS[:1, :160]
    with torch.no_grad():
        full = stock(tokens).logits[0, -1]
        past = stock(tokens[:, :60]).past_key_values
        for place in range(60, 160):
            step = stock(tokens[:, place : place + 1], past_key_values=past).logits[0, -1]
        same = ours(tokens, TARGETS[:1, :160])[0, -1]
    expected = -full.log_softmax(-1)[TARGETS[0, 159]]
    assert float(same) == pytest.approx(float(expected), abs=1e-6)
    assert float((step - full).abs().max()) > 1e-3 * float(full.std())


def test_self_extend_reaches_as_far_as_it_says() -> None:
    rope, position = Rope(8, 1e4, 64), SelfExtend(group_size=8, window=16)
    reach = (rope.original_context - position.window) * position.group_size + position.window
    places = torch.arange(reach)[None]
    near, far = position.attention_rule.passes(places, places)
    pass_of = position.attention_rule.pass_of(places, places)
    distances = torch.where(
        pass_of == 1,
        far.query_positions[:, :, None] - far.key_positions[:, None, :],
        near.query_positions[:, :, None] - near.key_positions[:, None, :],
    )
    assert int(distances.max()) <= rope.original_context
    assert math.isclose(int(distances.max()), rope.original_context, abs_tol=1)
