"""Layers keep what fits into the memory that is left, and no more."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from lit_pi.models import LanguageModel
from lit_pi.models.layers.layer_forward import CheckpointingMode
from lit_pi.models.training.activation_budget import LADDER, RESERVE, STEPS, ActivationBudget, climb
from lit_pi.models.training.activation_checkpointing import ActivationCheckpointing
from lit_pi.positions import Extrapolate, Rope

KEPT: dict[CheckpointingMode, int] = {"full": 1, "attention_saved": 3, "products_saved": 10, "none": 16}
FULL: list[CheckpointingMode] = ["full"] * 3


@pytest.mark.parametrize(
    ("spare", "modes"),
    [
        (-5, ["full", "full", "full"]),
        (1, ["full", "full", "full"]),
        (2, ["full", "full", "attention_saved"]),
        (5, ["full", "attention_saved", "attention_saved"]),
        (6, ["attention_saved"] * 3),
        (12, ["attention_saved"] * 3),
        (13, ["attention_saved", "attention_saved", "products_saved"]),
        (27, ["products_saved"] * 3),
        (33, ["products_saved", "products_saved", "none"]),
        (44, ["products_saved", "none", "none"]),
        (45, ["none"] * 3),
        (1e9, ["none"] * 3),
    ],
)
def test_rungs_in_order_and_the_last_layers_first(spare: float, modes: list[CheckpointingMode]) -> None:
    assert climb(FULL, KEPT, spare) == modes


def test_it_goes_on_from_where_layers_are() -> None:
    assert climb(climb(FULL, KEPT, 13), KEPT, 20) == climb(FULL, KEPT, 33)


def test_rungs_that_were_not_measured_are_stepped_over() -> None:
    assert climb(FULL, {"full": 1, "none": 16}, 30) == ["full", "none", "none"]
    assert climb(FULL, {"full": 1}, 30) == FULL


@given(
    modes=st.lists(st.sampled_from(LADDER), min_size=1, max_size=12),
    kept=st.dictionaries(st.sampled_from(LADDER), st.integers(0, 10**9), min_size=1),
    spare=st.floats(-1e9, 1e10, allow_nan=False),
)
def test_it_never_spends_more_than_there_is(
    modes: list[CheckpointingMode], kept: dict[CheckpointingMode, int], spare: float
) -> None:
    found = climb(modes, kept, spare)
    assert all(LADDER.index(new) >= LADDER.index(old) for new, old in zip(found, modes, strict=True))
    climbed = [(new, old) for new, old in zip(found, modes, strict=True) if new != old]
    assert sum(kept[new] - kept[old] for new, old in climbed) <= max(spare, 0)


MIB = 2**20
TOTAL = 1000 * MIB


class Gpu:
    """Memory as torch reports it, in steps whose activations are those of `KEPT`, in MiB."""

    weights, gradients, states, others = 100 * MIB, 100 * MIB, 200 * MIB, 50 * MIB
    """`others` are of processes beside this one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.allocated = self.peak = self.reserved = self.weights
        for name, answer in {
            "memory_allocated": lambda *_: self.allocated,
            "max_memory_allocated": lambda *_: self.peak,
            "memory_reserved": lambda *_: self.reserved,
            "mem_get_info": lambda *_: (TOTAL - self.others - self.reserved, TOTAL),
            "reset_peak_memory_stats": lambda *_: setattr(self, "peak", self.allocated),
        }.items():
            monkeypatch.setattr(torch.cuda, name, answer)

    def allocate(self, size: int) -> None:
        self.allocated += size
        self.peak = max(self.peak, self.allocated)
        self.reserved = max(self.reserved, self.peak)
        assert self.reserved <= TOTAL - self.others, "out of memory"

    def step(self, model: LanguageModel, budget: ActivationBudget, first: bool) -> Counter[CheckpointingMode] | None:
        for layer in model.layer_forwards:
            size = 8 * KEPT[layer.mode] * MIB
            self.allocate(size)
            if layer.measure is not None:
                layer.measure(size)
        self.allocate(self.gradients)
        budget.note_peak()
        self.allocated = self.weights + self.gradients + (0 if first else self.states)
        if first:
            self.allocate(self.states)
        self.allocated -= self.gradients
        return budget.settle()


def filled(
    monkeypatch: pytest.MonkeyPatch, layers: int, gib: float | None = None
) -> tuple[Gpu, list[CheckpointingMode]]:
    """The memory of a GPU and the modes of layers after a few steps."""
    config = LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=layers, num_attention_heads=1
    )
    model = LanguageModel(LlamaForCausalLM(config), Extrapolate(), Rope(8, 1e4, 32))
    ActivationCheckpointing("auto").install(model, on_gpu=True)
    gpu = Gpu(monkeypatch)
    budget = ActivationBudget(model, torch.device("cuda"), gib)
    settled = [gpu.step(model, budget, first=step == 0) for step in range(STEPS)]
    modes = [layer.mode for layer in model.layer_forwards]
    assert settled == [None] * (STEPS - 1) + [Counter(modes)]
    gpu.step(model, budget, first=False)
    return gpu, modes


def room(gpu: Gpu, limit: float) -> float:
    return limit - gpu.weights - gpu.gradients - gpu.states


@pytest.mark.parametrize(("layers", "gib"), [(4, None), (12, None), (20, None), (50, None), (12, 0.6), (12, 0.1)])
def test_the_memory_is_filled_and_not_exceeded(layers: int, gib: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, modes = filled(monkeypatch, layers, gib)
    limit = (1 - RESERVE) * TOTAL - gpu.others if gib is None else gib * 2**30
    spare = limit - gpu.weights - gpu.gradients - gpu.states - 8 * KEPT["full"] * layers * MIB
    unit = {mode: 8 * size * MIB for mode, size in KEPT.items()}
    assert modes == climb(["full"] * layers, unit, spare)
    if spare > 0:
        assert gpu.peak <= limit


def test_fewer_layers_than_rungs_climb_as_far_as_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert filled(monkeypatch, 2)[1] == ["attention_saved"] * 2
