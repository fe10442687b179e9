"""FlashAttention as its own packages bring it: documents one after the other, and windows, without a mask."""

import importlib
import warnings
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lit_pi.errors import UserError
from lit_pi.models.attention.masks import Lengths

FLASH_ATTN = "flash_attn"
"""The value of `model.attention` that asks for a package."""

HOPPER = 9
"""Major compute capability from which `flash-attn-4` has kernels."""

HEAD_DIMS = range(8, 257, 8)
"""Dimensions of a head for which both packages have kernels."""

DTYPES = (torch.bfloat16, torch.float16)
"""Dtypes of queries, keys and values for which they have kernels."""


class Package(NamedTuple):
    """A FlashAttention package: its kernels for documents of any lengths, as its own autograd functions call them.

    Attributes:
        name: its name and version.
        forward: output and logarithms of the softmax's sums, given what `_attend` is given.
        backward: gradients of query, key and value, given that of the output, and what `_attend` gets and gives.
    """

    name: str
    forward: Callable[..., tuple[Tensor, Tensor]]
    backward: Callable[..., tuple[Tensor, Tensor, Tensor]]


def attend_by_lengths(
    query: Float[Tensor, "batch heads seq head_dim"],
    key: Float[Tensor, "batch kv_heads seq head_dim"],
    value: Float[Tensor, "batch kv_heads seq value_dim"],
    lengths: Lengths,
    scaling: float,
) -> Float[Tensor, "batch seq heads value_dim"]:
    """Causal attention inside each document, by the package's kernel for documents of any lengths.

    Args:
        query: the queries.
        key: the keys.
        value: the values.
        lengths: where documents begin, and the window if there is one.
        scaling: factor on the scores.
    """
    laid = (states.transpose(1, 2).flatten(0, 1) for states in (query, key, value))
    output, _ = _attend(*laid, lengths.starts, lengths.longest, lengths.window, scaling)
    return output.unflatten(0, (query.shape[0], -1))


def check_package(device: torch.device, dtype: torch.dtype, head_dim: int, reasons: dict[str, bool]) -> str:
    """Check that a package can compute a model's attention, and give its name and version.

    Args:
        device: where the model runs, a GPU.
        dtype: dtype of the computation.
        head_dim: dimensions of a head.
        reasons: what of the model stands against it, and whether it applies.

    Raises:
        UserError: it cannot, or none is installed.
    """
    reasons = {
        f"computes in {str(dtype).removeprefix('torch.')}, for which FlashAttention has no kernels": (
            dtype not in DTYPES
        ),
        f"has heads of {head_dim} dimensions, for which FlashAttention has no kernels": head_dim not in HEAD_DIMS,
    } | reasons
    for reason, applies in reasons.items():
        if applies:
            raise UserError(f"model.attention is {FLASH_ATTN}, and the model {reason}: leave model.attention out")
    return package(device).name


def package(device: torch.device) -> Package:
    """The package for a device: `flash-attn-4` for GPUs from Hopper on, where it is installed, else `flash-attn`.

    Raises:
        UserError: neither is installed.
    """
    return _package(torch.cuda.get_device_capability(device)[0] >= HOPPER)


@cache
def _package(hopper: bool) -> Package:
    errors = []
    for find in (_flash_attn_4, _flash_attn_2) if hopper else (_flash_attn_2,):
        try:
            return find()
        except (ImportError, AttributeError, RuntimeError) as error:  # RuntimeError: of another version of CUDA
            errors.append(str(error))
    raise UserError(
        f"model.attention is {FLASH_ATTN}, and its package cannot be imported ({'; '.join(errors)}): install "
        f"{'flash-attn-4 (the extra `flash`) or ' if hopper else ''}flash-attn, or leave model.attention out"
    )


def _flash_attn_4() -> Package:
    module: Any = importlib.import_module("flash_attn.cute.interface")
    # Said of its own code whenever it compiles a kernel, to whom it does not help.
    warnings.filterwarnings("ignore", "Argument aux_data .* cannot be converted to a JitArgument", UserWarning)

    def forward(
        query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, window: int | None, scaling: float
    ) -> tuple[Tensor, Tensor]:
        output, log_sums, *_ = run_forward(
            query, key, value, **_of_documents(starts, longest, window), softmax_scale=scaling, return_lse=True
        )
        return output, log_sums

    def backward(
        gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, log_sums: Tensor,
        starts: Tensor, longest: int, window: int | None, scaling: float,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        gradients = run_backward(
            query, key, value, output, gradient, log_sums, **_of_documents(starts, longest, window),
            softmax_scale=scaling, deterministic=torch.are_deterministic_algorithms_enabled(),
        )  # fmt: skip
        return gradients[0], gradients[1], gradients[2]

    run_forward, run_backward = module._flash_attn_fwd, module._flash_attn_bwd
    return Package(f"flash-attn-4 {version('flash-attn-4')}", forward, backward)


def _of_documents(starts: Tensor, longest: int, window: int | None) -> dict[str, Any]:
    """Arguments by which both packages know documents and windows."""
    return {
        "cu_seqlens_q": starts,
        "cu_seqlens_k": starts,
        "max_seqlen_q": longest,
        "max_seqlen_k": longest,
        "causal": True,
        "window_size_left": None if window is None else window - 1,
        "window_size_right": None if window is None else 0,
    }


def _flash_attn_2() -> Package:
    module: Any = importlib.import_module("flash_attn.flash_attn_interface")

    def forward(
        query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, window: int | None, scaling: float
    ) -> tuple[Tensor, Tensor]:
        output, log_sums, *_ = run_forward(
            query, key, value, **_of_documents_2(starts, longest, window), softmax_scale=scaling, dropout_p=0.0
        )
        return output, log_sums

    def backward(
        gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, log_sums: Tensor,
        starts: Tensor, longest: int, window: int | None, scaling: float,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        gradients = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        run_backward(
            gradient, query, key, value, output, log_sums, *gradients, **_of_documents_2(starts, longest, window),
            softmax_scale=scaling, dropout_p=0.0, softcap=0.0, alibi_slopes=None,
            deterministic=torch.are_deterministic_algorithms_enabled(),
        )  # fmt: skip
        return gradients

    run_forward, run_backward = module._flash_attn_varlen_forward, module._flash_attn_varlen_backward
    return Package(f"flash-attn {version('flash-attn')}", forward, backward)


def _of_documents_2(starts: Tensor, longest: int, window: int | None) -> dict[str, Any]:
    return {name: -1 if each is None else each for name, each in _of_documents(starts, longest, window).items()}


@torch.library.custom_op("lit_pi::attend_by_lengths", mutates_args=())
def _attend(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, window: int | None, scaling: float
) -> tuple[Tensor, Tensor]:
    """Output `[tokens, heads, head_dim]` and logarithms of sums `[heads, tokens]`: one operation to torch.compile."""
    output, log_sums = package(query.device).forward(query, key, value, starts, longest, window, scaling)
    return output.contiguous(), log_sums.contiguous()


@torch.library.custom_op("lit_pi::attend_by_lengths_backward", mutates_args=())
def _attend_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    log_sums: Tensor,
    starts: Tensor,
    longest: int,
    window: int | None,
    scaling: float,
) -> tuple[Tensor, Tensor, Tensor]:
    of_query, of_key, of_value = package(query.device).backward(
        gradient.contiguous(), query, key, value, output, log_sums, starts, longest, window, scaling
    )
    return of_query.contiguous(), of_key.contiguous(), of_value.contiguous()


@_attend.register_fake
def _attend_fake(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, window: int | None, scaling: float
) -> tuple[Tensor, Tensor]:
    tokens, heads, _ = query.shape
    return query.new_empty(tokens, heads, value.shape[-1]), query.new_empty(heads, tokens, dtype=torch.float32)


@_attend_backward.register_fake
def _attend_backward_fake(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:  # torch names the arguments
    query, key, value, starts, *options = inputs
    ctx.save_for_backward(query, key, value, *output, starts)
    ctx.options = options


def _gradients(ctx: Any, gradient: Tensor, of_log_sums: Tensor | None) -> tuple[Tensor | None, ...]:
    return *_attend_backward(gradient, *ctx.saved_tensors, *ctx.options), None, None, None, None


_attend.register_autograd(_gradients, setup_context=_keep)

OPERATION: Any = torch.ops.lit_pi.attend_by_lengths.default
"""Attention by a package, as checkpointing knows it."""
