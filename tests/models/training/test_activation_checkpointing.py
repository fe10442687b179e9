"""Checkpointed layers learn what layers that keep everything learn."""

from typing import Any

import pytest
import torch
from saved import saving
from strategies import IN_MODELS
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from lit_pi.errors import UserError
from lit_pi.models import LanguageModel
from lit_pi.models.attention.attend import ATTENTION
from lit_pi.models.layers import compilation
from lit_pi.models.layers.layer_forward import ATTENTION_KERNELS
from lit_pi.models.training import offload
from lit_pi.models.training.activation_checkpointing import ActivationCheckpointing
from lit_pi.positions import Extrapolate, PositionStrategy, Rope

NONE = ActivationCheckpointing("none")
CHOICES = {
    "full": ActivationCheckpointing("full"),
    "attention_saved": ActivationCheckpointing("attention_saved"),
    "products_saved": ActivationCheckpointing("products_saved"),
    "every-second": ActivationCheckpointing("full", every_n_layers=2),
    "offload": ActivationCheckpointing("attention_saved", offload=True),
}
LAYERS = 4
TOKENS = torch.randint(0, 97, (2, 101), generator=torch.Generator().manual_seed(0))


def built(position: PositionStrategy, choice: ActivationCheckpointing, dropout: float = 0.0) -> LanguageModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=128, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=2,
        max_position_embeddings=32, attention_dropout=dropout, initializer_range=0.1,
    )  # fmt: skip
    llm = LlamaForCausalLM._from_config(config, attn_implementation=ATTENTION)
    model = LanguageModel(llm.double(), position, Rope(64, 1e4, 32))
    choice.install(model, on_gpu=False)
    return model.train()


def learnt(model: LanguageModel) -> list[torch.Tensor]:
    """Scores and gradients of packed documents and of longer ones, which stand in one backward pass."""
    torch.manual_seed(1)
    ids = torch.tensor([0] * 30 + [1] * 20).expand(2, -1)
    places = torch.cat((torch.arange(30), torch.arange(20))).expand(2, -1)
    packed = model(TOKENS[:, :50], TOKENS[:, 1:51], position_ids=places, document_ids=ids)
    alone = model(TOKENS[:, :-1], TOKENS[:, 1:])
    (packed.mean() + alone.mean()).backward()
    return [packed, alone, *(parameter.grad for parameter in model.parameters())]


@pytest.mark.parametrize("position", IN_MODELS.values(), ids=IN_MODELS)
def test_every_strategy_learns_the_same(position: PositionStrategy) -> None:
    expected = learnt(built(position, NONE))
    for found, wanted in zip(learnt(built(position, CHOICES["offload"])), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_learns_the_same(name: str) -> None:
    expected = learnt(built(Extrapolate(), NONE))
    for found, wanted in zip(learnt(built(Extrapolate(), CHOICES[name])), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_dropout_falls_on_the_same_weights_again() -> None:
    expected = learnt(built(Extrapolate(), NONE, dropout=0.5))
    for found, wanted in zip(learnt(built(Extrapolate(), CHOICES["full"], dropout=0.5)), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


class Calls(TorchDispatchMode):
    """Counts attention kernels and matrix products of the feed-forward layers."""

    attention = 0
    products = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.attention += function in ATTENTION_KERNELS
        self.products += function is torch.ops.aten.mm.default and result.shape[-1] == 64
        return result


@pytest.mark.parametrize(
    ("name", "attention", "products"),
    [
        ("full", 2, 2),
        ("attention_saved", 1, 2),
        ("products_saved", 1, 1),
        ("every-second", 1.5, 1.5),
        ("offload", 1, 2),
    ],
)
def test_what_runs_again(name: str, attention: float, products: float) -> None:
    def ran(choice: ActivationCheckpointing) -> Calls:
        model = built(Extrapolate(), choice)
        with Calls() as calls:
            model(TOKENS[:, :-1], TOKENS[:, 1:]).mean().backward()
        return calls

    plain, found = ran(NONE), ran(CHOICES[name])
    assert plain.attention == LAYERS
    assert found.attention == attention * LAYERS
    forward = 2 * LAYERS  # gate and up
    assert found.products - plain.products == (products - 1) * forward


def kept(choice: ActivationCheckpointing) -> int:
    """Bytes that the graph of the layers keeps for the backward pass in the hands of autograd, parameters aside."""
    model = built(Extrapolate(), choice)
    hidden_states = torch.randn(2, 100, 128, dtype=torch.float64, requires_grad=True)
    phases = model.rotary(hidden_states, torch.arange(100)[None])
    with saving() as saved:
        for layer in model.decoder_layers:
            hidden_states = layer(hidden_states, position_embeddings=phases)
    return saved.bytes_beside(model.parameters())


def test_checkpointed_layers_keep_their_inputs_only() -> None:
    inputs = 2 * 100 * 128 * 8
    everything = kept(NONE)
    assert everything > LAYERS * 10 * inputs
    assert kept(CHOICES["full"]) == LAYERS * inputs
    assert kept(CHOICES["offload"]) == 0  # they are in a place of the CPU's memory that is their copies' own
    assert kept(CHOICES["every-second"]) == pytest.approx(everything / 2 + 2 * inputs, rel=0.05)


def test_parameters_keep_their_names_and_scoring_needs_no_gradients() -> None:
    plain, checkpointed = built(Extrapolate(), NONE), built(Extrapolate(), CHOICES["attention_saved"])
    assert checkpointed.state_dict().keys() == plain.state_dict().keys()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert torch.equal(*(model(TOKENS[:, :-1], TOKENS[:, 1:]) for model in (plain, checkpointed)))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch reads it while it traces
def test_one_compiled_graph_serves_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients(model: LanguageModel) -> list[torch.Tensor]:
        model(TOKENS[:, :-1], TOKENS[:, 1:]).mean().backward()
        return [parameter.grad for parameter in model.parameters()]

    expected = gradients(built(Extrapolate(), NONE))
    model = built(Extrapolate(), CHOICES["attention_saved"])
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(compilation, "BACKEND", "aot_eager")
    for layer in model.layer_forwards:
        layer.compiled = True
    for found, wanted in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    torch._dynamo.reset()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_only_layers_inputs_go_to_the_cpu(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not weights and phases, which stay in the GPU's memory anyway; a generator's state does."""
    moved = []
    pack = offload._pack
    monkeypatch.setattr(offload, "_pack", lambda tensor, pin: moved.append(tensor) or pack(tensor, pin))
    monkeypatch.setattr(compilation, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    model = built(Extrapolate(), ActivationCheckpointing("full", offload=True))
    for layer in model.layer_forwards:
        layer.compiled = compiled
    model(TOKENS[:, :-1], TOKENS[:, 1:]).mean().backward()
    sizes = [each.nbytes for each in moved if each.is_floating_point() and each.numel()]
    assert sizes == [2 * 100 * 128 * 8] * LAYERS
    torch._dynamo.reset()


def test_settings_that_do_nothing_are_refused() -> None:
    for settings in ({"offload": True}, {"every_n_layers": 2}):
        with pytest.raises(UserError, match="chooses no layers with mode `none`"):
            ActivationCheckpointing("none", **settings)
    with pytest.raises(UserError, match="every_n_layers is 0"):
        ActivationCheckpointing("full", every_n_layers=0)


def test_what_waits_on_the_cpu_comes_back_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces, and in the order of its strides, on which compiled functions rely."""
    monkeypatch.setattr(offload, "PIECE", 64)
    dense = [torch.randn(3, 5, 7), torch.randn(3, 5, 7).mT, torch.randn(2, 9, 4, 6).permute(0, 2, 1, 3)]
    for tensor in (*dense, torch.randn(4, 9)[:, ::2], torch.randn(())):
        with offload.KeptOnCpu(pin=False):
            product = torch.ones_like(tensor).requires_grad_() * tensor
        back = product.grad_fn._saved_other
        assert torch.equal(back, tensor)
        assert back.stride() == tensor.stride() or not any(tensor is each for each in dense)


def test_nothing_waits_on_the_cpu_for_an_empty_tensor() -> None:
    """Kernels of attention keep some, also as `plan` traces them."""
    with FakeTensorMode():
        empty = torch.empty(0, 3)
        with offload.KeptOnCpu(pin=False):
            product = torch.empty(0, 3, requires_grad=True) * empty
        assert product.grad_fn._saved_other.shape == empty.shape
