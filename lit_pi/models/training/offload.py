"""Activations that wait for the backward pass in the CPU's memory."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

PIECE = 2**27
"""Bytes: torch pins powers of two, so that a tensor of one byte more than a power would take twice its size; and keeps
them for others of that size, which the largest gradients of a 7B or 8B model have under `cpu_offload`."""


class Kept(NamedTuple):
    """A tensor in the CPU's memory.

    Attributes:
        device: the device it came from.
        dtype: dtype of its elements.
        order: its dimensions from the largest stride to the smallest: compiled functions want their strides back.
        shape: its sizes, in that order.
        pieces: its elements, in flat tensors.
    """

    device: torch.device
    dtype: torch.dtype
    order: list[int]
    shape: torch.Size
    pieces: list[Tensor]


class KeptOnCpu(saved_tensors_hooks):
    """Moves what autograd keeps of the operations inside to the CPU, and back when the backward pass asks for it.

    As torch's `save_on_cpu`, in pieces, and without what stays on the GPU anyway: a host's memory then holds almost
    twice as much.

    Args:
        pin: take memory that GPUs read directly.
        staying: tensors that others hold as long, as a layer's weights and what all layers get; autograd keeps those.
    """

    def __init__(self, pin: bool, staying: Iterable[Tensor] = ()) -> None:
        storages = {tensor.untyped_storage()._cdata for tensor in staying}

        def pack(tensor: Tensor) -> Kept | Tensor:
            return tensor if tensor.untyped_storage()._cdata in storages else _pack(tensor, pin)

        super().__init__(pack, _unpack)


def give_back() -> None:
    """Return the pinned memory of activations that are gone to the system: torch would keep it for the next step."""
    torch._C._host_emptyCache()  # torch.accelerator.empty_host_cache from torch 2.12 on


def _pack(tensor: Tensor, pin: bool) -> Kept:
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    ordered, pieces = tensor.permute(order), []
    for piece in _pieces(ordered.reshape(-1)):
        kept = torch.empty(piece.shape, dtype=piece.dtype, pin_memory=pin)
        pieces.append(kept.copy_(piece))
    return Kept(tensor.device, tensor.dtype, order, ordered.shape, pieces)


def _unpack(kept: Kept | Tensor) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    whole = torch.empty(kept.shape.numel(), dtype=kept.dtype, device=kept.device)
    for place, piece in zip(_pieces(whole), kept.pieces, strict=True):
        place.copy_(piece, non_blocking=True)
    return whole.view(kept.shape).permute([kept.order.index(dim) for dim in range(len(kept.order))])


def _pieces(flat: Tensor) -> Iterator[Tensor]:
    """Views of at most `PIECE` bytes; none of an empty tensor, which fake tensors cannot split."""
    size = PIECE // flat.element_size()
    return (flat[start : start + size] for start in range(0, len(flat), size))
