"""The kernel that computes attention, and the choice of another one."""

import warnings
from typing import Literal

import torch
from torch.nn.attention import SDPBackend, activate_flash_attention_impl

from lit_pi.errors import UserError

Kernel = Literal["cudnn", "flash", "flash_attention_3", "flash_attention_4"]
"""Kernels for GPUs: cuDNN's, FlashAttention-2 that torch brings, and packages flash-attn-3 and flash-attn-4."""

PACKAGES = {"flash_attention_3": "FA3", "flash_attention_4": "FA4"}
"""Torch's names of packages that take the place of its own FlashAttention."""


def use_kernel(kernel: Kernel, device: torch.device) -> None:
    """Have one kernel compute causal attention without a mask, in the whole process.

    By default torch takes the first that can: on Hopper GPUs cuDNN's, the fastest there, then FlashAttention-2.

    Raises:
        UserError: the device is no GPU, or the kernel's package is not installed.
    """
    if device.type != "cuda":
        raise UserError(f"model.attention is {kernel}, a kernel for GPUs, and the model is on {device}: leave it out")
    if kernel in PACKAGES:
        try:
            activate_flash_attention_impl(PACKAGES[kernel])
        except (ImportError, ValueError) as error:
            raise UserError(
                f"model.attention is {kernel}, and its package cannot be imported ({error}): install it, or leave "
                "model.attention out"
            ) from error
    torch.backends.cuda.enable_cudnn_sdp(kernel == "cudnn")
    torch.backends.cuda.enable_flash_sdp(kernel != "cudnn")


def kernel_in_use(
    device: torch.device, dtype: torch.dtype, head_dim: int, context_length: int, masked: bool = False
) -> str:
    """Name of the kernel that torch picks for causal self-attention, for example `flash_attention`.

    Warns when that is the one which holds all scores in memory, where there are others.

    Args:
        device: where the model runs.
        dtype: dtype of the computation.
        head_dim: dimensions of a head.
        context_length: length of the sequences in tokens.
        masked: whether attention runs under a dense mask.
    """
    query = torch.empty(1, 1, context_length, head_dim, device=device, dtype=dtype)
    mask = torch.ones(1, 1, 1, context_length, device=device, dtype=torch.bool) if masked else None
    if mask is not None:
        mask = mask.expand(1, 1, context_length, context_length)
    choice = SDPBackend(torch._fused_sdp_choice(query, query, query, mask, is_causal=not masked))
    if choice is SDPBackend.MATH and device.type == "cuda" and dtype != torch.float64:
        warnings.warn(
            f"no fused kernel computes attention of heads of {head_dim} dimensions in {dtype} on {device}: all scores "
            "are held in memory, which grows with the square of the context length",
            stacklevel=2,
        )
    return choice.name.lower()


def check_kernel(kernel: Kernel, found: str) -> None:
    """Check that the kernel asked for is the one in use.

    Raises:
        UserError: torch picks another one.
    """
    wanted = "cudnn_attention" if kernel == "cudnn" else "flash_attention"
    if found != wanted:
        raise UserError(
            f"model.attention is {kernel}, and torch picks {found} for this model's heads and precision: leave "
            "model.attention out, or choose another precision"
        )
