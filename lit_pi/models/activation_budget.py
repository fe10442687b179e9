"""Activation checkpointing that spends the GPU memory which a first step leaves."""

from collections import Counter
from itertools import pairwise

import torch

from lit_pi.models.language_model import LanguageModel
from lit_pi.models.layer_forward import Mode

RESERVE = 0.04
"""Part of a GPU's memory that stays free: for the gaps between blocks that torch's allocator leaves."""

LADDER: tuple[Mode, ...] = ("full", "attention_saved", "none")
"""From the least that a layer keeps to the most: the first step up spares most work for its memory at long contexts."""


class ActivationBudget:
    """Measures the first step, in which one layer each stands on a higher rung, and sets all layers for those after it.

    Args:
        model: on a GPU, its layers checkpointed with `full`.
        device: which GPU.
        memory_gib: GiB that may be filled; all but `RESERVE` by default.
    """

    def __init__(self, model: LanguageModel, device: torch.device, memory_gib: float | None) -> None:
        self._layers = model.layer_forwards
        self._device = device
        self._limit = memory_gib
        self._kept: dict[Mode, int] = {}
        self._peak = 0
        self._before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        for layer, mode in zip(reversed(self._layers), LADDER, strict=False):
            layer.mode = mode
            layer.measure = lambda size, mode=mode: self._note(mode, size)

    def _note(self, mode: Mode, size: int) -> None:
        self._kept[mode] = max(size, self._kept.get(mode, 0))

    def note_peak(self) -> None:
        """Call when the gradients of the first step are there and its optimizer has not begun."""
        self._peak = torch.cuda.max_memory_allocated(self._device)

    def settle(self) -> Counter[Mode]:
        """Set the layers when the first step is over and its gradients are freed; how many are on each rung."""
        states = max(torch.cuda.memory_allocated(self._device) - self._before, 0)  # of the optimizer, from now on
        free, total = torch.cuda.mem_get_info(self._device)
        limit = free + torch.cuda.memory_reserved(self._device) - RESERVE * total
        if self._limit is not None:
            limit = min(limit, self._limit * 2**30)
        modes = spend(len(self._layers), self._kept, limit - self._peak - states)
        for layer, mode in zip(self._layers, modes, strict=True):
            layer.mode, layer.measure = mode, None
        return Counter(modes)


def spend(layers: int, kept: dict[Mode, int], spare: float) -> list[Mode]:
    """The highest rungs that fit, one rung after the other, those of the last layers first: they are freed first.

    Args:
        layers: how many there are.
        kept: bytes that a layer keeps on each rung; one that was not measured is not climbed.
        spare: bytes to spend beside `full` layers.
    """
    rungs = [rung for rung in LADDER if rung in kept]
    modes: list[Mode] = [LADDER[0]] * layers
    for low, high in pairwise(rungs):
        price = max(kept[high] - kept[low], 1)
        for layer in reversed(range(layers)):
            if modes[layer] == low and price <= spare:
                modes[layer] = high
                spare -= price
    return modes
