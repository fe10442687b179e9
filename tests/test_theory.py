"""The bounds of Position Interpolation's paper, and where it errs."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from lit_pi import theory
from lit_pi.positions import Extrapolate, Interpolate, NTKAware, PositionStrategy, Rope, YaRN

ROPE = Rope(128, 10_000.0, 2048)
HALF = ROPE.head_dim // 2
STRATEGIES = [Extrapolate(), Interpolate(4), NTKAware(4), YaRN(4)]


def random_complex(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def rotated_products(query: Tensor, key: Tensor, positions: Tensor, inv_freq: Tensor) -> Tensor:
    """Dot products [positions, positions] of one query and one key, rotated by transformers to every position."""
    angles = (positions[:, None] * inv_freq.double()).repeat(1, 2)[None]
    repeated = [vector.expand(1, 1, len(positions), -1) for vector in (query, key)]
    queries, keys = apply_rotary_pos_emb(*repeated, angles.cos(), angles.sin())
    return (queries @ keys.mT)[0, 0]


@pytest.mark.parametrize("position", STRATEGIES, ids=lambda position: type(position).__name__)
def test_the_score_is_what_rotating_query_and_key_gives(position: PositionStrategy) -> None:
    query, key = torch.randn(2, ROPE.head_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([0, 1, 2, 7, 100, 2047, 8191], dtype=torch.float64)
    inv_freq = position.inv_freq(ROPE, 8192)
    expected = rotated_products(query, key, positions, inv_freq)

    distances = positions[:, None] - positions
    score = theory.attention_score(theory.coefficients(query, key), distances.flatten(), inv_freq)
    torch.testing.assert_close(score.view_as(distances), expected, rtol=0, atol=1e-9)


def test_the_score_depends_on_the_distance_only() -> None:
    """Rotating both by a common offset changes neither: the reason why a function of distance is enough."""
    query, key = torch.randn(2, ROPE.head_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    here, there = torch.tensor([0.0, 12.0]).double(), torch.tensor([5000.0, 5012.0]).double()
    products = [rotated_products(query, key, positions, ROPE.inv_freq()) for positions in (here, there)]
    torch.testing.assert_close(*products, rtol=0, atol=1e-9)
    score = theory.attention_score(theory.coefficients(query, key), torch.tensor([12, -12]), ROPE.inv_freq())
    torch.testing.assert_close(score, torch.stack([products[1][1, 0], products[1][0, 1]]), rtol=0, atol=1e-9)
    assert not torch.isclose(*score)


def test_leading_dimensions_broadcast_and_precision_is_kept() -> None:
    query, key = torch.randn(3, 1, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    h = theory.coefficients(query, key)
    assert h.shape == (3, 5, 4)
    assert h.dtype == torch.complex128
    assert torch.equal(h[2, 4], theory.coefficients(query[2, 0], key[4]))
    assert theory.coefficients(query.bfloat16(), key.bfloat16()).dtype == torch.complex64

    inv_freq, distances = Rope(8, 100.0, 16).inv_freq(), torch.tensor([0.0, 0.5, 7.25])
    for function in (theory.attention_score, theory.interpolated_score, theory.interpolation_bound):
        result = function(h, distances, inv_freq)
        assert result.dtype == torch.float64
        assert result.shape == (3, 5, 3)
        torch.testing.assert_close(result[2, 4], function(h[2, 4], distances, inv_freq))


def test_interpolating_positions_is_interpolating_frequencies() -> None:
    h, distances = random_complex(HALF), torch.arange(0, 8192, 37)
    at_frequencies = theory.attention_score(h, distances, Interpolate(4).inv_freq(ROPE, 8192))
    at_positions = theory.attention_score(h, distances / 4, ROPE.inv_freq())
    torch.testing.assert_close(at_frequencies, at_positions, rtol=0, atol=1e-9)


def test_linear_interpolation_is_exact_at_the_integers_and_the_mean_half_way() -> None:
    h, integers = random_complex(HALF), torch.arange(-3, 50)
    exact = theory.attention_score(h, integers, ROPE.inv_freq())
    interpolated = theory.interpolated_score(h, integers, ROPE.inv_freq())
    torch.testing.assert_close(interpolated, exact, rtol=0, atol=1e-10)
    half_way, quarter = (theory.interpolated_score(h, integers[:-1] + part, ROPE.inv_freq()) for part in (0.5, 0.25))
    torch.testing.assert_close(half_way, (exact[:-1] + exact[1:]) / 2)
    torch.testing.assert_close(quarter, 0.75 * exact[:-1] + 0.25 * exact[1:])


def interpolation_error(h: Tensor, distances: Tensor, inv_freq: Tensor) -> Tensor:
    exact = theory.attention_score(h, distances, inv_freq)
    return (exact - theory.interpolated_score(h, distances, inv_freq)).abs()


def adversary(moduli: Tensor, peak: float, inv_freq: Tensor) -> Tensor:
    """Coefficients whose components all curve the same way at the distance `peak`."""
    return torch.polar(moduli, -peak * inv_freq.double())


def random_moduli(half: int, seed: int) -> Tensor:
    return torch.rand(half, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    start=st.integers(-4096, 32_768),
    head_dim=st.sampled_from([4, 8, 64, 80, 128]),
    rope_theta=st.sampled_from([100.0, 10_000.0, 500_000.0]),
    position=st.sampled_from(STRATEGIES),
    adversarial=st.booleans(),
)
def test_interpolation_never_errs_by_more_than_the_bound(
    seed: int, start: int, head_dim: int, rope_theta: float, position: PositionStrategy, adversarial: bool
) -> None:
    rope = Rope(head_dim, rope_theta, 2048)
    inv_freq = position.inv_freq(rope, 8192)
    h = random_complex(head_dim // 2, seed=seed)
    if adversarial:
        h = adversary(h.abs(), start + 0.5, inv_freq)
    fractions = torch.linspace(0, 1, 33, dtype=torch.float64)
    bound = theory.interpolation_bound(h, start + fractions, inv_freq)
    assert (interpolation_error(h, start + fractions, inv_freq) <= bound + 1e-9).all()
    looser = fractions * (1 - fractions) / 2 * h.abs().max() * inv_freq.double().square().sum()
    assert (bound <= looser + 1e-9).all()


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), start=st.integers(0, 32_768), position=st.sampled_from(STRATEGIES))
def test_an_adversary_attains_the_bound(seed: int, start: int, position: PositionStrategy) -> None:
    """1 - cos(theta / 2) is more than 97.9% of theta^2 / 8 for frequencies up to 1."""
    inv_freq = position.inv_freq(ROPE, 8192)
    h = adversary(random_moduli(HALF, seed), start + 0.5, inv_freq)
    half_way = torch.tensor([start + 0.5])
    error, bound = interpolation_error(h, half_way, inv_freq), theory.interpolation_bound(h, half_way, inv_freq)
    assert 0.975 * bound < error <= bound + 1e-9


@pytest.mark.parametrize(
    ("head_dim", "error", "papers", "ours"), [(128, 0.49388, 0.43429, 0.49979), (64, 0.2818, 0.2171, 0.2856)]
)
def test_theorem_2_1_as_printed_has_a_counter_example(head_dim: int, error: float, papers: float, ours: float) -> None:
    rope = Rope(head_dim, 10_000.0, 2048)
    h = adversary(torch.ones(head_dim // 2, dtype=torch.float64), 0.5, rope.inv_freq())
    half_way = torch.tensor([0.5])
    measured = interpolation_error(h, half_way, rope.inv_freq()).item()
    printed = theory.papers_interpolation_bound(h, half_way, rope).item()
    corrected = theory.interpolation_bound(h, half_way, rope.inv_freq()).item()
    assert measured == pytest.approx(error, abs=5e-5)
    assert printed == pytest.approx(papers, abs=5e-5)
    assert corrected == pytest.approx(ours, abs=5e-5)
    assert printed < measured < corrected


def test_the_papers_bound_is_equation_5() -> None:
    h, distances = random_complex(3, HALF), torch.tensor([4.0, 4.2, 4.5])
    expected = 128 * h.abs().max(-1).values[:, None] * torch.tensor([0, 0.2 * 0.8, 0.25]) / (8 * math.log(10_000))
    torch.testing.assert_close(
        theory.papers_interpolation_bound(h, distances.double(), ROPE), expected, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("position", STRATEGIES, ids=lambda position: type(position).__name__)
@pytest.mark.parametrize("head_dim", [4, 128])
def test_no_score_exceeds_equation_8_or_the_trivial_bound(position: PositionStrategy, head_dim: int) -> None:
    """Random coefficients, and for every distance the ones whose waves all peak there."""
    inv_freq, distances = position.inv_freq(Rope(head_dim, 10_000.0, 2048), 8192), torch.arange(0, 6000, 7)
    peaks = torch.polar(torch.ones(1, 1, dtype=torch.float64), -distances[:, None] * inv_freq.double())
    h = torch.cat([random_complex(20, head_dim // 2), peaks])
    score = theory.attention_score(h, distances, inv_freq).abs()
    bound = 2 * h.abs().amax(-1, keepdim=True) * theory.extrapolation_bound(distances, inv_freq)
    assert (score <= bound + 1e-9).all()
    assert (score <= h.abs().sum(-1, keepdim=True) + 1e-9).all()
    torch.testing.assert_close(score[20:].diagonal(), torch.full((len(peaks),), head_dim / 2, dtype=torch.float64))


def test_equation_8_needs_its_factor_of_two() -> None:
    """Two opposite coefficients whose frequencies are half a turn apart: the partial sums nearly cancel."""
    inv_freq, distance = Rope(4, 10_000.0, 2048).inv_freq(), torch.tensor([math.pi])
    bound = theory.extrapolation_bound(distance, inv_freq).item()
    assert bound == pytest.approx(1 + 2 * math.sin(math.pi / 200), abs=1e-6)  # |e^{i pi}| + |e^{i pi} + e^{i pi / 100}|
    score = theory.attention_score(torch.tensor([-1.0, 1.0], dtype=torch.complex128), distance, inv_freq).item()
    assert bound < score < 2 * bound


def test_b_exceeds_d_within_4096_tokens_and_not_beyond() -> None:
    ratio = theory.extrapolation_bound(torch.arange(32_769), ROPE.inv_freq()) / ROPE.head_dim
    assert ratio[:2049].min().item() == pytest.approx(1.4075, abs=1e-4)
    assert ratio[:4097].min().item() == pytest.approx(1.1159, abs=1e-4)
    assert ratio.argmin().item() == 22_297
    assert ratio.min().item() == pytest.approx(0.629, abs=1e-3)
