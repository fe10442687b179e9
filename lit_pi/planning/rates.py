"""Speed of the device at hand, measured."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count
from transformers import PreTrainedConfig

from lit_pi.planning.ledger import Work

SECONDS = 0.3
"""Each rate is the median over about so many seconds."""

TOKENS = 4096
"""Tokens that rates are measured with at most."""


def rates(
    config: PreTrainedConfig, head_dim: int, tokens: int, dtype: torch.dtype, device: torch.device
) -> Mapping[Work, float]:
    """FLOP or bytes a second of each kind of work, measured in the model's own sizes.

    Args:
        config: the model's config.
        head_dim: dimensions of a head.
        tokens: tokens of a batch.
        dtype: dtype of the computation.
        device: the device that computes.
    """
    rows = min(tokens, TOKENS)

    def new(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=dtype, device=device)

    states, weight = new(rows, config.hidden_size), new(config.intermediate_size, config.hidden_size)
    heads = config.num_attention_heads
    query = new(1, heads, rows, head_dim).requires_grad_()
    shape = query.shape
    attention = sdpa_flop_count(shape, shape, shape) + sdpa_backward_flop_count(shape, shape, shape, shape)
    return {
        Work.PRODUCTS: 2 * states.numel() * len(weight) / _seconds(lambda: states @ weight.mT),
        Work.ATTENTION: attention / 2 / _seconds(lambda: _attend(query)),
        Work.MEMORY: 3 * states.numel() * states.element_size() / _seconds(lambda: states + states),
    }


def _attend(query: torch.Tensor) -> None:
    output = F.scaled_dot_product_attention(query, query, query, is_causal=True)
    torch.autograd.grad(output, query, output)


def _seconds(work: Callable[[], object]) -> float:
    """Waits for GPUs, and uses the threads that training has."""
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=SECONDS).median
