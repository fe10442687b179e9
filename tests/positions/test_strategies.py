"""Every position strategy, held to the same contract and to stock transformers."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from lit_pi.errors import UserError
from lit_pi.positions import Extrapolate, Interpolate, PositionStrategy, Rope, prefix_agrees

STRATEGIES = [
    pytest.param(Extrapolate(), id="extrapolate"),
    pytest.param(Interpolate(scale=4), id="interpolate-scale"),
    pytest.param(Interpolate(target_context=3072), id="interpolate-target"),
]


def stock_rotary(position: PositionStrategy, rope: Rope) -> LlamaRotaryEmbedding:
    config = LlamaConfig(
        hidden_size=2 * rope.head_dim,
        num_attention_heads=2,
        max_position_embeddings=rope.original_context,
        rope_parameters=position.rope_parameters(rope),
    )
    return LlamaRotaryEmbedding(config)


@pytest.mark.parametrize("position", STRATEGIES)
@pytest.mark.parametrize("head_dim", [64, 80, 128])
@pytest.mark.parametrize("rope_theta", [10_000.0, 500_000.0, 123_456.0])
def test_frequencies_are_bit_equal_to_transformers(
    position: PositionStrategy, head_dim: int, rope_theta: float
) -> None:
    rope = Rope(head_dim, rope_theta, 2048)
    stock = stock_rotary(position, rope)
    assert torch.equal(position.inv_freq(rope, 4096), stock.inv_freq)
    assert position.attention_scaling(rope, 4096) == stock.attention_scaling


@pytest.mark.parametrize("scale", [1.5, 2, 8, 31.25, 32])
def test_interpolation_divides_positions_by_the_scale(scale: float) -> None:
    rope = Rope(64, 10_000.0, 2048)
    positions = torch.arange(0, 65_536, 37)[None]
    exact = positions[..., None].double() / scale * 10_000.0 ** (-torch.arange(0, 64, 2).double() / 64)
    angles = Interpolate(scale=scale).angles(positions, rope, 65_536)
    assert angles.dtype == torch.float32
    torch.testing.assert_close(angles.double(), exact, rtol=3e-7, atol=0)


def test_target_context_means_a_scale_relative_to_the_original_context() -> None:
    assert Interpolate(target_context=8192).scale_of(Rope(64, 1e4, 2048)) == 4
    assert Interpolate(target_context=8192).scale_of(Rope(64, 1e4, 512)) == 16


def test_scale_one_changes_nothing() -> None:
    rope = Rope(64, 1e4, 2048)
    assert torch.equal(Interpolate(scale=1).inv_freq(rope, 2048), Extrapolate().inv_freq(rope, 2048))


@pytest.mark.parametrize("position", STRATEGIES)
def test_declared_prefix_consistency_is_true(position: PositionStrategy) -> None:
    assert position.prefix_consistent == prefix_agrees(position, Rope(64, 1e4, 128), [128, 256, 1024])


def test_a_strategy_that_depends_on_the_length_is_found_out() -> None:
    class Liar(Extrapolate):
        def inv_freq(self, rope: Rope, context_length: int) -> torch.Tensor:
            return rope.inv_freq() / max(1, context_length / rope.original_context)

    assert not prefix_agrees(Liar(), Rope(64, 1e4, 128), [128, 256])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "neither"),
        ({"scale": 2, "target_context": 4096}, "both"),
        ({"scale": 0.5}, "0.5"),
        ({"scale": float("nan")}, "nan"),
        ({"scale": float("inf")}, "inf"),
    ],
)
def test_nonsense_parameters_are_refused(arguments: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Interpolate(**arguments)


def test_a_target_below_the_original_context_is_refused() -> None:
    with pytest.raises(UserError, match="1024.*2048"):
        Interpolate(target_context=1024).scale_of(Rope(64, 1e4, 2048))
