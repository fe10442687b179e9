"""Every position strategy, held to the same contract and to stock transformers."""

import json
import math
from pathlib import Path

import pytest
import torch
from strategies import FACTORS, IN_MODELS, STRATEGIES
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from lit_pi.errors import UserError
from lit_pi.positions import (
    AdjustedBase,
    CoPE,
    DynamicNTK,
    Extrapolate,
    Interpolate,
    Llama3,
    LongRoPE,
    NoPositions,
    NTKAware,
    NTKByParts,
    PositionStrategy,
    PRoPE,
    Resonance,
    Rope,
    YaRN,
    prefix_agrees,
)
from lit_pi.positions.testing import check_contract

STOCK = {
    "linear": lambda scale, half: Interpolate(scale),
    "dynamic": lambda scale, half: DynamicNTK(scale),
    "yarn": lambda scale, half: YaRN(scale),
    "longrope": lambda scale, half: LongRoPE([1 + scale * j / half for j in range(half)], scale=scale),
    "llama3": lambda scale, half: Llama3(scale),
    "proportional": lambda scale, half: PRoPE(1 / scale),
}
"""Transformers' rope types that have a strategy here, by scale and number of frequencies."""

ROPE = Rope(64, 10_000.0, 2048)


def every_strategy() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("position", STRATEGIES.values(), ids=STRATEGIES)


@pytest.mark.parametrize("position", IN_MODELS.values(), ids=IN_MODELS)
def test_the_contract_holds(position: PositionStrategy) -> None:
    ropes = [Rope(64, 1e4, 2048), Rope(64, 5e5, 512)]
    check_contract(position, ropes, monotonic=not isinstance(position, LongRoPE))  # whose factors are the user's


@pytest.mark.parametrize("kind", STOCK)
@pytest.mark.parametrize("head_dim", [64, 80, 128])
@pytest.mark.parametrize("rope_theta", [10_000.0, 500_000.0, 123_456.0])
@pytest.mark.parametrize("scale", [1.5, 2, 8, 31.25, 32])
def test_frequencies_are_bit_equal_to_transformers(kind: str, head_dim: int, rope_theta: float, scale: float) -> None:
    rope = Rope(head_dim, rope_theta, 2048)
    position = STOCK[kind](scale, head_dim // 2)
    parameters = position.rope_parameters(rope)
    assert parameters["rope_type"] == kind
    config = LlamaConfig(hidden_size=2 * head_dim, num_attention_heads=2, max_position_embeddings=2048)
    config.rope_parameters = parameters
    for length in (2048, 2049, 16_384):
        inv_freq, attention_scaling = ROPE_INIT_FUNCTIONS[kind](config, seq_len=torch.tensor(length))  # as models do
        assert torch.equal(position.inv_freq(rope, length), inv_freq)
        assert position.attention_scaling(rope, length) == attention_scaling


@pytest.mark.parametrize("position", [Extrapolate(), NTKAware(4), AdjustedBase(5e5)], ids=lambda p: type(p).__name__)
def test_a_base_is_all_that_transformers_needs_of_some(position: PositionStrategy) -> None:
    config = LlamaConfig(hidden_size=128, num_attention_heads=2, rope_parameters=position.rope_parameters(ROPE))
    assert torch.equal(position.inv_freq(ROPE, 8192), LlamaRotaryEmbedding(config).inv_freq)


@every_strategy()
def test_the_default_export_is_the_same_rotation_in_longrope_factors(position: PositionStrategy) -> None:
    """Strategies without a rope type of their own are exact there up to the rounding of a factor."""
    try:
        parameters = PositionStrategy.rope_parameters(position, ROPE)
    except UserError as refusal:
        inv_freq = position.inv_freq(ROPE, 2048)
        assert (inv_freq == 0).any() or not position.prefix_consistent or position.attention_rule is not None
        assert type(position).__name__ in str(refusal)
        return
    config = LlamaConfig(hidden_size=128, num_attention_heads=2, max_position_embeddings=8192)
    config.rope_parameters = parameters
    inv_freq, attention_scaling = ROPE_INIT_FUNCTIONS["longrope"](config, seq_len=8192)
    torch.testing.assert_close(inv_freq, position.inv_freq(ROPE, 2048), rtol=2e-7, atol=0)
    assert attention_scaling == position.attention_scaling(ROPE, 2048)


@pytest.mark.parametrize("strategy", [Interpolate, NTKAware, DynamicNTK, NTKByParts, YaRN, Llama3])
def test_scale_one_changes_nothing(strategy: type) -> None:
    position = strategy(scale=1)
    torch.testing.assert_close(position.inv_freq(ROPE, 2048), Extrapolate().inv_freq(ROPE, 2048), rtol=2e-7, atol=0)
    assert position.attention_scaling(ROPE, 2048) == 1.0


@pytest.mark.parametrize("strategy", [Interpolate, NTKAware, DynamicNTK, NTKByParts, YaRN, Llama3])
def test_target_context_is_relative_to_the_original_context(strategy: type) -> None:
    for original, scale in ((2048, 4.0), (512, 16.0)):
        rope = Rope(64, 1e4, original)
        assert torch.equal(
            strategy(target_context=8192).inv_freq(rope, 8192), strategy(scale=scale).inv_freq(rope, 8192)
        )


def exact_frequencies(theta: float = 1e4) -> list[float]:
    return [theta ** (-2 * j / 64) for j in range(32)]


def golden() -> dict[str, tuple[PositionStrategy, list[float]]]:
    """Frequencies of methods that transformers does not have, in double precision, from the papers' formulas."""
    kept = [min(max((2048 * f / (2 * math.pi) - 1) / 31, 0), 1) for f in exact_frequencies()]
    by_parts = [(1 - g) * f / 4 + g * f for f, g in zip(exact_frequencies(), kept, strict=True)]
    fade = [0.5 * (1 + math.cos(math.pi * max(j - 12, 0) / 19)) for j in range(32)]
    return {
        "interpolate": (Interpolate(4), [f / 4 for f in exact_frequencies()]),
        "ntk-aware": (NTKAware(4), exact_frequencies(1e4 * 4 ** (64 / 62))),
        "dynamic-ntk": (DynamicNTK(4), exact_frequencies(1e4 * (4 * 8192 / 2048 - 3) ** (64 / 62))),
        "ntk-by-parts": (NTKByParts(4), by_parts),
        "yarn-rotations": (YaRN(4, ramp="rotations"), by_parts),
        "adjusted-base": (AdjustedBase(5e5), exact_frequencies(5e5)),
        "resonance": (
            Resonance(),
            [2 * math.pi / round(2 * math.pi / f) for f in exact_frequencies()],
        ),
        "cope": (CoPE(AdjustedBase(5e5)), [f * w for f, w in zip(exact_frequencies(5e5), fade, strict=True)]),
        "cope, all of them": (
            CoPE(clipped=40),
            [f * (1 + math.cos(math.pi * j / 31)) / 2 for j, f in enumerate(exact_frequencies())],
        ),
        "no-positions": (NoPositions(), [0.0] * 32),
    }


@pytest.mark.parametrize("name", golden())
def test_frequencies_follow_the_papers_formula(name: str) -> None:
    position, expected = golden()[name]
    found = position.inv_freq(ROPE, 8192).double()
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=2e-6, atol=1e-12)


def test_the_lowest_frequency_of_ntk_aware_is_interpolated_and_the_highest_kept() -> None:
    stretched, original = NTKAware(8).inv_freq(ROPE, 0), ROPE.inv_freq()
    assert stretched[0] == original[0]
    assert float(original[-1] / stretched[-1]) == pytest.approx(8, rel=1e-5)


def test_yarns_temperature() -> None:
    assert YaRN(16).attention_scaling(ROPE, 0) == pytest.approx(0.1 * math.log(16) + 1)
    assert YaRN(16, attention_factor=1.5).attention_scaling(ROPE, 0) == 1.5
    assert NTKByParts(16).attention_scaling(ROPE, 0) == 1.0


def test_longrope_reads_factors_from_a_file(tmp_path: Path) -> None:
    both = tmp_path / "factors.json"
    both.write_text(json.dumps({"long_factor": FACTORS, "short_factor": [2.0] * 32}))
    alone = tmp_path / "list.json"
    alone.write_text(json.dumps(FACTORS))
    for position, short in ((LongRoPE(str(both), scale=4), 2.0), (LongRoPE(str(alone), scale=4), 1.0)):
        assert torch.equal(position.inv_freq(ROPE, 4096), LongRoPE(FACTORS, scale=4).inv_freq(ROPE, 4096))
        torch.testing.assert_close(position.inv_freq(ROPE, 2048), ROPE.inv_freq() / short)
    assert LongRoPE(FACTORS, FACTORS, scale=4).prefix_consistent


def test_a_strategy_that_depends_on_the_length_is_found_out() -> None:
    class Liar(Extrapolate):
        def inv_freq(self, rope: Rope, context_length: int) -> torch.Tensor:
            return rope.inv_freq() / max(1, context_length / rope.original_context)

    assert not prefix_agrees(Liar(), Rope(64, 1e4, 128), [128, 256])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Interpolate(), "neither"),
        (lambda: Interpolate(scale=2, target_context=4096), "both"),
        (lambda: Interpolate(scale=0.5), r"0\.5"),
        (lambda: YaRN(scale=math.nan), "nan"),
        (lambda: DynamicNTK(scale=math.inf), "inf"),
        (lambda: Interpolate(target_context=1024).inv_freq(ROPE, 0), r"1024.*2048"),
        (lambda: NTKByParts(4, beta_fast=1, beta_slow=32), "beta_slow 32"),
        (lambda: YaRN(4, attention_factor=-1), "attention_factor of YaRN is -1"),
        (lambda: Llama3(4, low_freq_factor=4, high_freq_factor=4), "low_freq_factor 4"),
        (lambda: LongRoPE([], scale=4), "long_factor"),
        (lambda: LongRoPE([1.0, -2.0], scale=4), "long_factor"),
        (lambda: LongRoPE("nowhere.json", scale=4), r"nowhere\.json"),
        (lambda: LongRoPE([1.0] * 31, scale=4).inv_freq(ROPE, 8192), "31 factors.*32 frequencies"),
        (lambda: AdjustedBase(1.0), "rope_theta of AdjustedBase is 1"),
        (lambda: PRoPE(0), "fraction of PRoPE is 0"),
        (lambda: PRoPE(1.5), r"fraction of PRoPE is 1\.5"),
        (lambda: CoPE(Extrapolate(), clipped=1), "clipped of CoPE is 1"),
        (lambda: CoPE(Extrapolate(), clipped=20).rope_parameters(ROPE), "no rope type for CoPE.*frequency of zero"),
    ],
)
def test_nonsense_is_refused(make: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()
