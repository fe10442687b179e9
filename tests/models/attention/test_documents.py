"""Packed documents are scored, and learnt from, as if each were alone."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from strategies import IN_MODELS
from torch._dynamo.testing import CompileCounter
from torch.nn.attention.flex_attention import BlockMask, create_mask, flex_attention
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from lit_pi.errors import UserError
from lit_pi.models import LanguageModel
from lit_pi.models import language_model as language_model_module
from lit_pi.models.attention import attend as attention
from lit_pi.models.attention.attend import ATTENTION
from lit_pi.models.attention.kernels import blocks_are_fastest, check_kernel, kernel_in_use, use_kernel
from lit_pi.models.attention.masks import Tokens, make_mask, masks_for
from lit_pi.positions import Extrapolate, PositionStrategy, Rope, SelfExtend

LENGTHS = [[5, 130, 1, 64], [200]]
SEQ = 200

uncompiled = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def language_model(
    position: PositionStrategy | None = None, head_dim: int = 64, architecture: type = LlamaConfig, **config: Any
) -> LanguageModel:
    torch.manual_seed(0)
    fields = {
        "vocab_size": 97, "hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": head_dim, "max_position_embeddings": 64,
    }  # fmt: skip
    llm = AutoModelForCausalLM.from_config(architecture(**fields | config), attn_implementation=ATTENTION)
    return LanguageModel(llm.double(), position or Extrapolate(), Rope(head_dim, 1e4, 64))


def packed(lengths: list[list[int]]) -> dict[str, torch.Tensor]:
    """Tokens, targets, positions and document ids of rows of documents."""
    seq = sum(lengths[0])
    tokens = torch.randint(97, (len(lengths), seq + 1), generator=torch.Generator().manual_seed(0))
    return {
        "input_ids": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "position_ids": torch.stack([torch.cat([torch.arange(length) for length in row]) for row in lengths]),
        "document_ids": torch.stack([torch.repeat_interleave(torch.tensor(row)) for row in lengths]),
    }


def document_mask(ids: torch.Tensor, blocks: bool) -> Any:
    """The mask of layers that see all of their document."""
    rows, seq = ids.shape
    with masks_for(Tokens("blocks" if blocks else "matrix", ids)):
        return make_mask(batch_size=rows, q_length=seq, kv_length=seq, device=ids.device)


def alone(model: LanguageModel) -> torch.Tensor:
    """The scores of every document in a forward of its own."""
    batch, rows = packed(LENGTHS), []
    for row, lengths in enumerate(LENGTHS):
        parts = zip(batch["input_ids"][row].split(lengths), batch["targets"][row].split(lengths), strict=True)
        rows.append(torch.cat([model(ids[None], wanted[None], context_length=SEQ)[0] for ids, wanted in parts]))
    return torch.stack(rows)


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Block masks here too: FlexAttention on the CPU is slow and has no backward, but computes the same."""
    monkeypatch.setattr(language_model_module, "blocks_are_fastest", lambda *_: True)


def test_documents_are_learnt_as_if_alone() -> None:
    model = language_model()
    expected = alone(model)
    expected.sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    found = model(**packed(LENGTHS))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    found.sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-7, atol=1e-8, msg=name)


@uncompiled
@pytest.mark.parametrize("head_dim", [8, 48, 128])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_documents_in_blocks_are_scored_as_if_alone(head_dim: int, kv_heads: int, blocks: None) -> None:
    model = language_model(head_dim=head_dim, num_key_value_heads=kv_heads)
    with torch.no_grad():
        torch.testing.assert_close(model(**packed(LENGTHS)), alone(model), rtol=0, atol=1e-9)


@pytest.mark.parametrize("position", IN_MODELS.values(), ids=IN_MODELS)
def test_every_strategy_keeps_documents_apart(position: PositionStrategy) -> None:
    model = language_model(position)
    with torch.no_grad():
        torch.testing.assert_close(model(**packed(LENGTHS)), alone(model), rtol=0, atol=1e-6)


@uncompiled
@pytest.mark.parametrize("architecture", [LlamaConfig, Qwen3Config])
def test_autocast_is_that_of_scaled_dot_product_attention(architecture: type, monkeypatch: pytest.MonkeyPatch) -> None:
    model = language_model(architecture=architecture).float()
    scores, seen = [], []

    def spy(*states: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.extend(state.dtype for state in states)
        return flex_attention(*states, **options)

    monkeypatch.setattr(attention, "flex_attention", spy)
    for as_blocks, autocast in ((True, True), (False, True), (False, False)):
        monkeypatch.setattr(language_model_module, "blocks_are_fastest", lambda *_, it=as_blocks: it)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
            scores.append(model(**packed(LENGTHS)))
    in_blocks, dense, exact = scores
    assert set(seen) == {torch.bfloat16}
    assert in_blocks.dtype == torch.float32
    assert (dense - exact).abs().max() > 1e-4
    torch.testing.assert_close(in_blocks, exact, rtol=0, atol=2 * float((dense - exact).abs().max()))


@pytest.mark.parametrize("seq", [1024, 1000, 128])
def test_blocks_hold_what_the_matrix_holds_and_skip_what_nobody_sees(seq: int) -> None:
    rows = [[300, 3, 700, 21], [128, 128, 512, 256], [1024]]
    ids = torch.stack([torch.repeat_interleave(torch.tensor(row)) for row in rows])[:, :seq].contiguous()
    ids[0, seq - 7 :] = -1  # padding
    blocks, matrix = document_mask(ids, blocks=True), document_mask(ids, blocks=False)
    assert isinstance(blocks, BlockMask) and isinstance(matrix, torch.Tensor)
    for row in range(3):
        for query in (0, 1, 99, 127, 128, 302, 303, seq - 7, seq - 1):
            if query < seq:
                seen = [key for key in range(query + 1) if ids[row, key] == ids[row, query]]
                assert matrix[row, 0, query].nonzero()[:, 0].tolist() == seen
    assert torch.equal(create_mask(blocks.mask_mod, 3, 1, seq, seq, "cpu"), matrix)
    whole = torch.zeros(3, 1024, 1024, dtype=torch.bool)
    whole[:, :seq, :seq] = matrix[:, 0]
    visited = whole.unflatten(2, (8, 128)).unflatten(1, (8, 128)).any(dim=4).any(dim=2)
    used = -(-seq // 128)
    assert torch.equal(blocks.to_dense()[:, 0].bool(), visited[:, :used, :used])


@uncompiled
def test_compiled_layers_share_one_graph_whatever_the_documents(blocks: None) -> None:
    model = language_model(num_hidden_layers=4)
    counter = CompileCounter()
    rows = [LENGTHS, [[200], [7, 193]], [[50] * 4, [100] * 2]]
    with torch.no_grad():
        expected = [model(**packed(lengths)) for lengths in rows]
        torch._dynamo.reset()
        for layer in model.decoder_layers:
            layer.compile(backend=counter, fullgraph=True)
        for lengths, scores in zip(rows, expected, strict=True):
            torch.testing.assert_close(model(**packed(lengths)), scores, rtol=0, atol=1e-12)
    assert counter.frame_count == 1


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
def test_a_compiled_block_mask_is_one_graph_whatever_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    monkeypatch.setattr(
        "lit_pi.models.attention.masks.compiled_on",
        lambda _, create: torch.compile(create, backend=counter, fullgraph=True),
    )
    for lengths in (LENGTHS, [[200], [7, 193]], [[50] * 4, [100] * 2]):
        ids = packed(lengths)["document_ids"]
        blocks = document_mask(ids, blocks=True)
        assert isinstance(blocks, BlockMask)
        assert torch.equal(create_mask(blocks.mask_mod, 2, 1, SEQ, SEQ, "cpu"), document_mask(ids, blocks=False))
    assert counter.frame_count == 1


def test_what_isolates_documents_where() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert blocks_are_fastest(gpu, torch.bfloat16, 128)
    assert blocks_are_fastest(gpu, torch.float32, 48)
    assert not blocks_are_fastest(gpu, torch.float64, 128)
    assert not blocks_are_fastest(cpu, torch.float32, 128)
    with pytest.warns(UserWarning, match="no heads of 8 dimensions: packed documents are isolated by a dense mask"):
        assert not blocks_are_fastest(gpu, torch.bfloat16, 8)
    with pytest.warns(UserWarning, match="no dropout of attention weights"):
        assert not language_model(attention_dropout=0.1).float().isolates_by_blocks(gpu)
    assert not language_model(SelfExtend(4, 16)).float().isolates_by_blocks(gpu)
    assert kernel_in_use(cpu, torch.float32, 64, 128) == "flash_attention"
    assert kernel_in_use(cpu, torch.float32, 64, 128, masked=True) in {"flash_attention", "math"}


def test_a_kernel_asked_for_is_used_or_refused() -> None:
    with pytest.raises(UserError, match=r"model.attention is cudnn, a kernel for GPUs, and the model is on cpu"):
        use_kernel("cudnn", torch.device("cpu"))
    check_kernel("cudnn", "cudnn_attention")
    check_kernel("flash_attention_3", "flash_attention")
    with pytest.raises(UserError, match=r"model.attention is flash, and torch picks math for this model's heads"):
        check_kernel("flash", "math")


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"flash_attention_3, and its package cannot be imported .*: install it"):
        use_kernel("flash_attention_3", torch.device("cuda"))
