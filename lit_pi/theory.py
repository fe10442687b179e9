"""The attention score as a function of distance, and how far it can stray (Chen et al. 2023, arXiv 2306.15595).

The score of a query and a key that lie s tokens apart is a(s) = Re[sum_j h_j e^{i s theta_j}] (equation 3), before
the division by sqrt(head_dim) and before a strategy's `attention_scaling`. Every function takes the frequencies
theta_j as `inv_freq`, in radians a token, and so serves every strategy: pass `strategy.inv_freq(rope, length)`.
Position Interpolation by a scale is the score of pre-training at distances / scale, which is also the score with
inv_freq / scale at the distances themselves. The theorem on interpolation wants the first: fractional distances and
the frequencies of pre-training. Distances are in tokens, and all is computed in float64.
"""

import math

import torch
from jaxtyping import Bool, Complex, Complex128, Float, Float64, Real
from torch import Tensor

from lit_pi.positions import Rope


def coefficients(query: Float[Tensor, "*#batch dim"], key: Float[Tensor, "*#batch dim"]) -> Complex[Tensor, "... half"]:
    """h_j = (q_2j + i q_2j+1)(k_2j - i k_2j+1) of equation 3, in the half-split layout of transformers.

    The paper pairs neighbours, 2j with 2j+1; the models here pair component j with j + dim / 2.

    Args:
        query: not yet rotated; its leading dimensions broadcast with the key's.
        key: not yet rotated.

    Returns:
        One coefficient a frequency, complex128 for float64 and complex64 for anything narrower.
    """
    query_real, query_imag = _wide(query).chunk(2, dim=-1)
    key_real, key_imag = _wide(key).chunk(2, dim=-1)
    return torch.complex(query_real, query_imag) * torch.complex(key_real, -key_imag)


def attention_score(
    h: Complex[Tensor, "*batch half"], distances: Real[Tensor, " n"], inv_freq: Float[Tensor, " half"]
) -> Float64[Tensor, "*batch n"]:
    """a(s) = Re[sum_j h_j e^{i s theta_j}] (equation 3).

    Args:
        h: coefficients, as `coefficients` gives them.
        distances: s = position of the query - position of the key, in tokens; any real numbers.
        inv_freq: theta_j in radians a token.
    """
    return (h.to(torch.complex128) @ _phases(distances, inv_freq).T).real


def interpolated_score(
    h: Complex[Tensor, "*batch half"], distances: Real[Tensor, " n"], inv_freq: Float[Tensor, " half"]
) -> Float64[Tensor, "*batch n"]:
    """a_lin(s) = (1 - lambda) a(s1) + lambda a(s2), lambda = (s - s1) / (s2 - s1) (equation 6).

    s1 and s2 = s1 + 1 are the integers around s: pre-training has seen the scores there. Arguments as for
    `attention_score`.
    """
    below = distances.double().floor()
    return torch.lerp(
        attention_score(h, below, inv_freq), attention_score(h, below + 1, inv_freq), distances.double() - below
    )


def interpolation_bound(
    h: Complex[Tensor, "*batch half"], distances: Real[Tensor, " n"], inv_freq: Float[Tensor, " half"]
) -> Float64[Tensor, "*batch n"]:
    """Bound on |a(s) - a_lin(s)|: (s - s1)(s2 - s) / 2 * sum_j |h_j| theta_j^2 (theorem 2.1, with its constant mended).

    The remainder of linear interpolation is at most (s - s1)(s2 - s) / 2 * max|a''|, and |a''| is at most
    sum_j |h_j| theta_j^2. That is at most max|h_j| sum_j theta_j^2, which is the form to compare with the paper's.
    Arguments as for `attention_score`.
    """
    curvature = (h.to(torch.complex128).abs() * inv_freq.double() ** 2).sum(-1, keepdim=True)
    return curvature / 2 * _cell(distances)


def papers_interpolation_bound(
    h: Complex[Tensor, "*batch half"], distances: Real[Tensor, " n"], rope: Rope
) -> Float64[Tensor, "*batch n"]:
    """Equation 5 as printed: d max|h_j| (s - s1)(s2 - s) / (8 ln c). It is too small; use `interpolation_bound`.

    The proof (appendix A) bounds 1 / (1 - c^(-4/d)) by d / (4 ln c) from c^x <= 1 + x ln c for x < 0, but convexity
    says c^x >= 1 + x ln c. With head_dim 128 and c = 10000, sum_j theta_j^2 is 3.9983 and d / (4 ln c) is 3.4744;
    h_j = e^(-i theta_j / 2) at s = 1/2 breaks the bound.

    Args:
        h: coefficients, as `coefficients` gives them.
        distances: s in tokens.
        rope: d is its `head_dim` and c its `rope_theta`; the theorem speaks of these frequencies only.
    """
    largest = h.to(torch.complex128).abs().amax(-1, keepdim=True)
    return rope.head_dim * largest / (8 * math.log(rope.rope_theta)) * _cell(distances)


def extrapolation_bound(distances: Real[Tensor, " n"], inv_freq: Float[Tensor, " half"]) -> Float64[Tensor, " n"]:
    """B(s) = sum_{k < d/2} |A_{k+1}(s)|, A_k(s) = sum_{j < k} e^{i s theta_j}: |a(s)| <= 2 max|h_j| B(s) (equation 8).

    Summation by parts gives max|h_j - h_{j+1}| B(s) with h_{d/2} = 0, and so the factor 2. The bound holds at any
    distance, but the trivial |a(s)| <= sum_j |h_j| <= (d / 2) max|h_j| is smaller wherever B(s) > d / 4.

    Args:
        distances: s in tokens.
        inv_freq: theta_j in radians a token, in the order of the sum: from the highest frequency on.
    """
    return _phases(distances, inv_freq).cumsum(-1).abs().sum(-1)


def unseen_frequencies(inv_freq: Float[Tensor, " half"], rope: Rope, context_length: int) -> Bool[Tensor, " half"]:
    """Find the frequencies that reach angles which pre-training has not seen.

    A frequency that turned at least once in the original context has seen every angle. Another one has seen those up
    to its largest there, and leaves them where its largest angle in `context_length` tokens is larger.

    Args:
        inv_freq: frequencies of the strategy, in radians a token.
        rope: the rotary embedding of pre-training.
        context_length: length of a sequence in tokens.
    """
    seen = (rope.original_context - 1) * rope.inv_freq().double()
    # Float32 frequencies times positions end a rounding apart.
    return (seen < 2 * math.pi) & ((context_length - 1) * inv_freq.double() > seen * (1 + 1e-6))


def _wide(vector: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
    """At least float32, as `torch.complex` takes no bfloat16."""
    return vector.to(torch.promote_types(vector.dtype, torch.float32))


def _phases(distances: Real[Tensor, " n"], inv_freq: Float[Tensor, " half"]) -> Complex128[Tensor, "n half"]:
    """e^{i s theta_j}."""
    angles = distances.double()[:, None] * inv_freq.double()
    return torch.polar(torch.ones_like(angles), angles)


def _cell(distances: Real[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """(s - s1)(s2 - s) in square tokens: 0 at the integers and 1/4 half-way."""
    fraction = distances.double() - distances.double().floor()
    return fraction * (1 - fraction)
