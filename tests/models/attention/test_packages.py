"""A FlashAttention package's kernels compute what a dense mask computes; stand-ins for them run here, on the CPU."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma2Config, MistralConfig

from lit_pi.errors import UserError
from lit_pi.models import LanguageModel
from lit_pi.models.attention import attend as attention
from lit_pi.models.attention import packages
from lit_pi.models.attention.attend import ATTENTION
from lit_pi.models.layers.layer_forward import CheckpointingMode
from lit_pi.positions import Extrapolate, PositionStrategy, Rope, SelfExtend

GPU = torch.device("cuda")
ROWS = {"whole": None, "packed": [[5, 70, 1, 24], [60, 40]]}
SEQ = 100
calls: list[str] = []


def seen(starts: Tensor, window_size_left: int, window_size_right: int) -> Tensor:
    """Who sees whom among documents laid end to end, as the packages' documentation says it."""
    index = torch.arange(int(starts[-1]))
    document = torch.searchsorted(starts[1:], index, right=True)
    behind = index[:, None] - index
    near = behind <= (window_size_left if window_size_left >= 0 else len(index))
    assert window_size_right <= 0
    return (document[:, None] == document) & (behind >= 0) & near


def scores(query: Tensor, key: Tensor, softmax_scale: float, mask: Tensor) -> Tensor:
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    return (torch.einsum("qhd,khd->hqk", query, key) * softmax_scale).masked_fill(~mask, -torch.inf)


def mixed(query: Tensor, key: Tensor, value: Tensor, softmax_scale: float, mask: Tensor) -> Tensor:
    value = value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)
    return torch.einsum("hqk,khd->qhd", scores(query, key, softmax_scale, mask).softmax(-1), value)


def pulled_back(gradient: Tensor, states: tuple[Tensor, ...], softmax_scale: float, mask: Tensor) -> Any:
    return torch.func.vjp(lambda *each: mixed(*each, softmax_scale, mask), *states)[1](gradient)


def flash_attn_4() -> ModuleType:
    module: Any = ModuleType("flash_attn.cute.interface")

    def forward(
        q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int,
        max_seqlen_k: int, softmax_scale: float, causal: bool, window_size_left: int | None,
        window_size_right: int | None, return_lse: bool,
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        assert causal and return_lse and max_seqlen_q >= int(cu_seqlens_q.diff().max())
        calls.append("forward")
        mask = seen(cu_seqlens_k, *(-1 if each is None else each for each in (window_size_left, window_size_right)))
        output = mixed(q, k, v, softmax_scale, mask)
        return output, scores(q, k, softmax_scale, mask).logsumexp(-1).float(), None, None, None

    def backward(
        q: Tensor, k: Tensor, v: Tensor, out: Tensor, dout: Tensor, lse: Tensor, softmax_scale: float, causal: bool,
        softcap: float = 0.0, window_size_left: int | None = None, window_size_right: int | None = None, *,
        cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int, max_seqlen_k: int, deterministic: bool,
    ) -> Any:  # fmt: skip
        mask = seen(cu_seqlens_k, *(-1 if each is None else each for each in (window_size_left, window_size_right)))
        torch.testing.assert_close(lse, scores(q, k, softmax_scale, mask).logsumexp(-1).float())
        return pulled_back(dout, (q, k, v), softmax_scale, mask)

    module._flash_attn_fwd, module._flash_attn_bwd = forward, backward
    return module


def flash_attn_2() -> ModuleType:
    module: Any = ModuleType("flash_attn.flash_attn_interface")

    def forward(
        q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int,
        max_seqlen_k: int, dropout_p: float, softmax_scale: float, causal: bool, window_size_left: int = -1,
        window_size_right: int = -1,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        assert causal and not dropout_p
        calls.append("forward")
        mask = seen(cu_seqlens_k, window_size_left, window_size_right)
        log_sums = scores(q, k, softmax_scale, mask).logsumexp(-1).float()
        return mixed(q, k, v, softmax_scale, mask), log_sums, q.new_empty(0), q.new_empty(2)

    def backward(
        dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, softmax_lse: Tensor, dq: Tensor, dk: Tensor,
        dv: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int, max_seqlen_k: int,
        dropout_p: float, softmax_scale: float, causal: bool, window_size_left: int, window_size_right: int,
        softcap: float, alibi_slopes: None, deterministic: bool,
    ) -> Tensor:  # fmt: skip
        mask = seen(cu_seqlens_k, window_size_left, window_size_right)
        for gradient, found in zip((dq, dk, dv), pulled_back(dout, (q, k, v), softmax_scale, mask), strict=True):
            gradient.copy_(found)
        return softmax_lse

    module._flash_attn_varlen_forward, module._flash_attn_varlen_backward = forward, backward
    return module


@pytest.fixture(params=[flash_attn_4, flash_attn_2])
def package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One of the packages, as if it were installed beside a Hopper GPU; kernels here take float64 on the CPU."""
    module = request.param()
    for name in ("flash_attn", "flash_attn.cute", "flash_attn.cute.interface", "flash_attn.flash_attn_interface"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for parent in ("flash_attn", "flash_attn.cute"):
        if module.__name__.startswith(f"{parent}."):
            monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
    monkeypatch.setattr(packages, "version", lambda name: "1")
    monkeypatch.setattr(packages, "DTYPES", (torch.float64,))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    packages._package.cache_clear()
    calls.clear()
    request.addfinalizer(packages._package.cache_clear)
    return "flash-attn-4 1" if "cute" in module.__name__ else "flash-attn 1"


def language_model(window: int | None = None, position: PositionStrategy | None = None, **fields: Any) -> LanguageModel:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": 97, "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64,
    }  # fmt: skip
    config = MistralConfig(sliding_window=window, **sizes | fields)
    llm = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)
    return LanguageModel(llm.double(), position or Extrapolate(), Rope(config.head_dim, 1e4, 64))


def batch(lengths: list[list[int]] | None) -> dict[str, Tensor]:
    tokens = torch.randint(97, (2, SEQ + 1), generator=torch.Generator().manual_seed(0))
    found = {"input_ids": tokens[:, :-1], "targets": tokens[:, 1:]}
    if lengths is not None:
        found["position_ids"] = torch.stack([torch.cat([torch.arange(length) for length in row]) for row in lengths])
        found["document_ids"] = torch.stack([torch.repeat_interleave(torch.tensor(row)) for row in lengths])
    return found


def learnt(model: LanguageModel, **options: Any) -> list[Tensor]:
    """Scores and gradients."""
    model.zero_grad()
    found = model(**options)
    found.sum().backward()
    return [found.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def refuse(*arguments: object, **options: object) -> None:
    raise AssertionError("not the package's kernel")


@pytest.mark.parametrize("window", [None, 16])
@pytest.mark.parametrize("lengths", ROWS.values(), ids=ROWS)
def test_documents_and_windows_are_learnt_as_under_a_dense_mask(
    package: str, window: int | None, lengths: list[list[int]] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = language_model(window)
    expected = learnt(model, **batch(lengths))
    model.use_package(GPU, torch.float64)
    assert model.package == package
    monkeypatch.setattr(attention, "sdpa_attention_forward", refuse)
    monkeypatch.setattr(attention, "window_attention", refuse)
    torch.testing.assert_close(learnt(model, **batch(lengths)), expected, rtol=0, atol=1e-10)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch reads it while it traces
@pytest.mark.parametrize("package", [flash_attn_4], indirect=True)
def test_compiled_layers_take_the_package_in_one_graph(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = language_model(16)
    expected = learnt(model, **batch(ROWS["packed"]))
    model.use_package(GPU, torch.float64)
    torch._dynamo.reset()
    for layer in model.layer_forwards:
        layer.compiled, layer.mode = True, "attention_saved"
    monkeypatch.setattr("lit_pi.models.layers.compilation.BACKEND", "aot_eager")
    torch.testing.assert_close(learnt(model, **batch(ROWS["packed"])), expected, rtol=0, atol=1e-10)
    assert calls == ["forward"] * 2  # what checkpointing keeps does not run again


@pytest.mark.parametrize("mode", ["attention_saved", "full"])
def test_checkpointing_keeps_what_it_gives(package: str, mode: CheckpointingMode) -> None:
    model = language_model(16)
    expected = learnt(model, **batch(None))
    model.use_package(GPU, torch.float64)
    for layer in model.layer_forwards:
        layer.mode = mode
    torch.testing.assert_close(learnt(model, **batch(None)), expected, rtol=0, atol=1e-10)
    assert len(calls) == (2 if mode == "attention_saved" else 4)


def test_scoring_prunes_the_last_layer_where_rows_are_whole(package: str) -> None:
    model, scored = language_model(), torch.tensor([7, 98])
    rows = batch(None) | {"scored": scored, "targets": batch(None)["targets"][:, scored]}
    with torch.no_grad():
        expected = model(**rows)
        model.use_package(GPU, torch.float64)
        torch.testing.assert_close(model(**rows), expected, rtol=0, atol=1e-10)
        assert calls == ["forward"]
        packed = batch(ROWS["packed"]) | {"scored": scored, "targets": rows["targets"]}
        found = model(**packed)
        assert calls == ["forward"] * 3
        model.package = None
        torch.testing.assert_close(found, model(**packed), rtol=0, atol=1e-10)


REFUSED: dict[str, tuple[dict[str, Any], torch.dtype, str]] = {
    "float32": ({}, torch.float32, r"computes in float32, for which FlashAttention has no kernels"),
    "head_dim": ({"head_dim": 20}, torch.float64, "has heads of 20 dimensions, for which"),
    "dropout": ({"attention_dropout": 0.1}, torch.float64, r"drops attention weights \(`attention_dropout`\)"),
    "rule": ({"position": SelfExtend(4, 16)}, torch.float64, "follows the attention rule of SelfExtend"),
}


@pytest.mark.parametrize(("fields", "dtype", "reason"), REFUSED.values(), ids=REFUSED)
def test_models_that_no_package_computes_are_refused(
    package: str, fields: dict[str, Any], dtype: torch.dtype, reason: str
) -> None:
    model = language_model(**fields)
    with pytest.raises(UserError, match=f"model.attention is flash_attn, and the model {reason}.*: leave"):
        model.use_package(GPU, dtype)
    assert model.package is None


def test_soft_caps_are_refused(package: str) -> None:
    config = Gemma2Config(
        vocab_size=97, hidden_size=32, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=64,
    )  # fmt: skip
    llm = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)
    model = LanguageModel(llm, Extrapolate(), Rope(16, 1e4, 64))
    with pytest.raises(UserError, match="has soft caps or sinks"):
        model.use_package(GPU, torch.float64)


@pytest.mark.parametrize(
    ("major", "named"), [(9, "install flash-attn-4 .* or flash-attn,"), (8, "install flash-attn,")]
)
def test_a_package_that_is_not_installed_is_named(
    major: int, named: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for name in ("flash_attn", "flash_attn.cute", "flash_attn.cute.interface", "flash_attn.flash_attn_interface"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, 0))
    packages._package.cache_clear()
    with pytest.raises(UserError, match=f"its package cannot be imported .*: {named}"):
        language_model().use_package(GPU, torch.bfloat16)
