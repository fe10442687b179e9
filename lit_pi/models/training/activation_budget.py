"""Activation checkpointing that spends the GPU memory which the first steps leave."""

from collections import Counter
from itertools import pairwise

import torch

from lit_pi.models.language_model import LanguageModel
from lit_pi.models.layers.layer_forward import CheckpointingMode

RESERVE = 0.03
"""Part of a GPU's memory that stays free: for the gaps between blocks that torch's allocator leaves."""

LADDER: tuple[CheckpointingMode, ...] = ("full", "attention_saved", "products_saved", "none")
"""From the least that a layer keeps to the most: the first step up spares most work for its memory at long contexts."""

STEPS = 3
"""Steps that are measured: activations are gone where gradients come, so the first sum is too careful."""


class ActivationBudget:
    """Measures steps, in the first of which one layer each stands on a higher rung, and lets layers climb after each.

    Args:
        model: a model on a GPU, its layers checkpointed with `full`.
        device: the GPU.
        memory_gib: GiB that may be filled; all but `RESERVE` by default.
    """

    def __init__(self, model: LanguageModel, device: torch.device, memory_gib: float | None) -> None:
        self._layers = model.layer_forwards
        self._device = device
        self._limit = memory_gib
        self._kept: dict[CheckpointingMode, int] = {}
        self._steps = 0
        for layer, mode in zip(reversed(self._layers), LADDER, strict=False):
            layer.mode = mode
            layer.measure = lambda size, mode=mode: self._note(mode, size)
        self._begin()

    def _begin(self) -> None:
        self._peak = 0
        self._before = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)

    def _note(self, mode: CheckpointingMode, size: int) -> None:
        self._kept[mode] = max(size, self._kept.get(mode, 0))

    def note_peak(self) -> None:
        """Call when the gradients of a step are there and its optimizer has not begun."""
        self._peak = torch.cuda.max_memory_allocated(self._device)

    def settle(self) -> Counter[CheckpointingMode] | None:
        """Call when a step is over and its gradients are freed; how many layers are on each rung when all have climbed.

        Until then None. The layers' modes are set for the next step.
        """
        states = max(torch.cuda.memory_allocated(self._device) - self._before, 0)  # of the optimizer, from now on
        free, total = torch.cuda.mem_get_info(self._device)
        limit = fillable(free + torch.cuda.memory_reserved(self._device), total, self._limit)
        modes = [layer.mode for layer in self._layers]
        if self._steps == 0:
            modes = [LADDER[0]] * len(modes)
        modes = climb(modes, self._kept, limit - self._peak - states)
        for layer, mode in zip(self._layers, modes, strict=True):
            layer.mode, layer.measure = mode, None
        self._steps += 1
        self._begin()
        return Counter(modes) if self._steps == STEPS else None


def fillable(available: float, total: float, memory_gib: float | None) -> float:
    """Bytes that a step may fill: what a process can have without the reserve, or so many GiB if that is less."""
    limit = available - RESERVE * total
    return limit if memory_gib is None else min(limit, memory_gib * 2**30)


def climb(modes: list[CheckpointingMode], kept: dict[CheckpointingMode, int], spare: float) -> list[CheckpointingMode]:
    """The highest rungs that fit, one rung after the other, the last layers first, whose activations are freed first.

    Args:
        modes: the layers' modes as they are.
        kept: bytes that one layer keeps on each rung; one that was not measured is not climbed.
        spare: bytes to spend beside what the layers keep.
    """
    modes = list(modes)
    for low, high in pairwise(rung for rung in LADDER if rung in kept):
        price = max(kept[high] - kept[low], 1)
        for layer in reversed(range(len(modes))):
            if modes[layer] == low and price <= spare:
                modes[layer] = high
                spare -= price
    return modes
