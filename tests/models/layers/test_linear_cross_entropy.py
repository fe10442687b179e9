"""The chunked loss against torch's cross-entropy of all logits."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    PreTrainedConfig,
)

from lit_pi.batches import IGNORE
from lit_pi.errors import UserError
from lit_pi.models import LanguageModel
from lit_pi.models.layers import linear_cross_entropy
from lit_pi.models.layers.linear_cross_entropy import linear_cross_entropy as chunked
from lit_pi.models.layers.logits import Logits, LogitScale, logit_scale
from lit_pi.positions import Extrapolate, Rope

VOCAB, HIDDEN = 97, 16
POSITIONS = 256
"""Of a chunk."""


@pytest.fixture(autouse=True)
def several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_cross_entropy, "LOGITS", POSITIONS * VOCAB)


def drawn(seq: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, weight, targets (some ignored), and a gradient for every target."""
    chance = torch.Generator().manual_seed(seq)
    hidden = torch.randn(2, seq, HIDDEN, generator=chance, dtype=torch.float64)
    weight = torch.randn(VOCAB, HIDDEN, generator=chance, dtype=torch.float64)
    targets = torch.randint(VOCAB, (2, seq), generator=chance)
    targets[0, ::7] = IGNORE
    upstream = torch.randn(2, seq, generator=chance, dtype=torch.float64)
    return hidden.to(dtype), weight.to(dtype), targets, upstream


@pytest.mark.parametrize("seq", [5, POSITIONS // 2, POSITIONS + 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize(("scale", "cap"), [(1.0, None), (0.25, 3.0)])
def test_values_ranks_and_gradients_are_those_of_all_logits(
    seq: int, dtype: torch.dtype, tolerance: float, scale: float, cap: float | None
) -> None:
    hidden, weight, targets, upstream = drawn(seq, dtype)
    bias = torch.linspace(-1, 1, VOCAB, dtype=dtype)
    ours, theirs = ([part.clone().requires_grad_() for part in (hidden, weight, bias)] for _ in range(2))
    token_nll, rank = chunked(ours[0], Logits(ours[1], ours[2], scale, cap), targets, ranked=True)
    logits = (theirs[0] @ theirs[1].mT + theirs[2]) * scale
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    for found, wanted in ((token_nll, ours), (expected, theirs)):
        (found * upstream).sum().backward(inputs=wanted)
    torch.testing.assert_close(token_nll, expected, rtol=tolerance, atol=tolerance)
    for mine, full in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, full.grad, rtol=0, atol=tolerance * float(full.grad.abs().max()))
    better = (logits > logits.gather(-1, targets.clamp(min=0)[..., None])).sum(-1)
    assert torch.equal(rank, better * (targets != IGNORE))


def test_of_equal_logits_greedy_decoding_takes_the_first() -> None:
    hidden = torch.randn(1, 64, HIDDEN, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(8, HIDDEN, generator=torch.Generator().manual_seed(1))[[0, 1, 2, 3, 0, 1, 2, 3]]
    greedy = (hidden @ weight.mT).argmax(dim=-1)
    assert greedy.unique().tolist() == [0, 1, 2, 3]
    for shift, first in ((0, True), (4, False)):
        rank = linear_cross_entropy.linear_cross_entropy(hidden, Logits(weight), greedy + shift, ranked=True)[1]
        assert torch.equal(rank == 0, torch.full_like(rank, first, dtype=torch.bool))


def test_chunks_in_bfloat16_add_up_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_cross_entropy, "LOGITS", 16 * VOCAB)
    hidden, weight, targets, _ = drawn(4096, torch.bfloat16)
    exact = [part.double().requires_grad_() for part in (hidden, weight)]
    chunked(exact[0], Logits(exact[1]), targets)[0].mean().backward()
    for mixed in (False, True):
        parts = [(part.float() if mixed else part.clone()).requires_grad_() for part in (hidden, weight)]
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            token_nll, _ = chunked(parts[0], Logits(parts[1]), targets)
            token_nll.mean().backward()
        assert token_nll.dtype == torch.float32
        for part, wanted in zip(parts, exact, strict=True):
            assert part.grad.dtype == part.dtype
            error = (part.grad.double() - wanted.grad).norm() / wanted.grad.norm()
            assert error < 6e-3  # of bfloat16 logits: a unit in the last place is 8e-3


def test_a_frozen_output_layer_costs_no_gradient() -> None:
    hidden, weight, targets, _ = drawn(5, torch.float32)
    chunked(hidden.requires_grad_(), Logits(weight), targets)[0].sum().backward()
    assert hidden.grad is not None and weight.grad is None


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation gave."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("tied", [False, True])
def test_the_models_logits_are_never_all_in_memory(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    config = LlamaConfig(
        vocab_size=1000, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=tied,
    )  # fmt: skip
    torch.manual_seed(0)
    llm = AutoModelForCausalLM.from_config(config).double()
    model = LanguageModel(llm, Extrapolate(), Rope(8, 1e4, 2048))
    tokens = torch.randint(1000, (2, 101))
    llm(tokens[:, :-1], labels=tokens[:, :-1], shift_labels=tokens[:, 1:].contiguous()).loss.backward()
    expected = {name: parameter.grad for name, parameter in llm.named_parameters()}
    llm.zero_grad()
    monkeypatch.setattr(linear_cross_entropy, "LOGITS", 16 * 1000)
    with Largest() as largest:
        model(tokens[:, :-1], tokens[:, 1:]).mean().backward()
    # The weight of 1,000 x 16 elements is as large as 16 positions' logits.
    assert largest.elements == 16 * 1000
    for name, parameter in llm.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (CohereConfig(logit_scale=0.0625), LogitScale(0.0625)),
        (GraniteConfig(logits_scaling=8.0), LogitScale(0.125)),
        (Gemma2Config(final_logit_softcapping=30.0), LogitScale(1.0, 30.0)),
        (LlamaConfig(), LogitScale()),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_what_follows_the_output_layer_is_found_by_asking_the_model(
    config: PreTrainedConfig, expected: LogitScale
) -> None:
    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(config)
    assert logit_scale(llm) == expected


def test_logits_of_another_form_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(LlamaConfig())
    own = type(llm).forward

    def squared(*args: Any, **kwargs: Any) -> Any:
        output = own(*args, **kwargs)
        output.logits = output.logits**2
        return output

    monkeypatch.setattr(type(llm), "forward", squared)
    with pytest.raises(UserError, match="LlamaForCausalLM makes its logits in a way of its own, and not by a matrix"):
        logit_scale(llm)
