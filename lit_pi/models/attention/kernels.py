"""The kernel that computes attention, and the choice of another one."""

import warnings
from typing import Literal

import torch
from torch.nn.attention import SDPBackend, activate_flash_attention_impl

from lit_pi.errors import UserError
from lit_pi.models.attention.packages import FLASH_ATTN

Kernel = Literal["cudnn", "flash", "flash_attn", "flash_attention_3"]
"""Kernels for GPUs: cuDNN's, FlashAttention-2 that torch brings, the package flash-attn-4 or flash-attn for windows and
packed documents too, and the package flash-attn-3 in place of torch's."""

FLEX_ATTENTION = "flex_attention"
"""Name of the kernel that isolates packed documents and keeps windows on GPUs, beside those of `kernel_in_use`."""

HEAD_DIMS = range(16, 257)
"""Dimensions of a head for FlexAttention on GPUs: its kernels refuse fewer, and more are not trusted untried."""


def use_kernel(kernel: Kernel, device: torch.device) -> None:
    """Have one kernel compute causal attention without a mask, in the whole process; flash_attn is of a model alone.

    By default torch takes the first that can: on Hopper GPUs cuDNN's, the fastest there, then FlashAttention-2.

    Raises:
        UserError: the device is no GPU, or the kernel's package is not installed.
    """
    if device.type != "cuda":
        raise UserError(f"model.attention is {kernel}, a kernel for GPUs, and the model is on {device}: leave it out")
    if kernel == FLASH_ATTN:
        return  # `LanguageModel.use_package`
    if kernel == "flash_attention_3":
        try:
            activate_flash_attention_impl("FA3")
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


def blocks_are_fastest(device: torch.device, dtype: torch.dtype, head_dim: int, dropout: float = 0.0) -> bool:
    """Whether FlexAttention isolates documents and keeps windows: on GPUs, with a warning where it cannot there.

    Args:
        device: where the model runs.
        dtype: dtype of its weights.
        head_dim: dimensions of a head.
        dropout: share of the attention weights to drop.
    """
    # Without a GPU it has no backward. Its GPU kernels sum in float32 whatever the inputs are: who asks for float64
    # asks for more.
    if device.type != "cuda" or dtype == torch.float64:
        return False
    missing = {f"heads of {head_dim} dimensions": head_dim not in HEAD_DIMS, "dropout of attention weights": dropout}
    for reason, applies in missing.items():
        if applies:
            warnings.warn(
                f"FlexAttention has no {reason}: packed documents are isolated by a dense mask, whose memory and "
                "time grow with the square of the context length",
                stacklevel=2,
            )
            return False
    return True
