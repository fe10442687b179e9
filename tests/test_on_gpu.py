"""The same numbers on a GPU as on the CPU, where there is one."""

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from prompts import batch_of
from strategies import STRATEGIES
from torch import distributed
from transformers import AttentionMaskInterface, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig

from lit_pi.cli import LitPiCLI
from lit_pi.errors import UserError
from lit_pi.models import FromScratch, LanguageModel
from lit_pi.models import language_model as language_model_module
from lit_pi.models.attention import attend as attention
from lit_pi.models.attention.attend import ATTENTION
from lit_pi.models.attention.packages import package
from lit_pi.models.decoding.generation import generate
from lit_pi.models.equality.checks import check_weights
from lit_pi.positions import Interpolate, PositionStrategy, Rope, SelfExtend

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore"),
]

TOKENS = torch.randint(0, 97, (2, 301), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def no_group_left() -> Iterator[None]:
    """Lightning leaves a process group of NCCL behind, which tests on the CPU cannot use."""
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.mark.parametrize("position", STRATEGIES.values(), ids=STRATEGIES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.bfloat16, 0.1)])
def test_scores_are_those_of_the_cpu(position: PositionStrategy, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=128, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64,
    )  # fmt: skip
    llm = LlamaForCausalLM._from_config(config, attn_implementation=ATTENTION)
    model = LanguageModel(llm.double().eval(), position, Rope(64, 1e4, 64))
    with torch.no_grad():
        expected = model(TOKENS[:, :-1], TOKENS[:, 1:])
        model.to("cuda", dtype)
        found = model(TOKENS[:, :-1].cuda(), TOKENS[:, 1:].cuda())
    torch.testing.assert_close(found.double().cpu(), expected, rtol=0, atol=tolerance)


def test_generation_with_an_attention_rule() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=128, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64,
    )  # fmt: skip
    llm = LlamaForCausalLM._from_config(config, attn_implementation=ATTENTION)
    model = LanguageModel(llm.double().eval(), SelfExtend(4, 16), Rope(64, 1e4, 64))
    batch = batch_of([TOKENS[0, :50], TOKENS[1, :20]], 100)
    expected = generate(model, batch).token_ids
    there = move_data_to_device(batch, torch.device("cuda"))
    assert torch.equal(generate(model.cuda(), there).token_ids.cpu(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_drawn_layer_by_layer_are_those_drawn_at_once(dtype: torch.dtype) -> None:
    source, device = FromScratch("2m"), torch.device("cuda")
    torch.set_default_dtype(dtype)
    try:
        torch.manual_seed(0)
        with device:
            built, _ = source.build()
        torch.manual_seed(0)
        filled, _, fill = source.lazily(device)
        filled.apply(fill)
    finally:
        torch.set_default_dtype(torch.float32)
    for name, weight in built.named_parameters():
        assert torch.equal(filled.get_parameter(name), weight), name


PRECISIONS = {
    "bf16-true": ["--trainer.precision=bf16-true"],
    "bf16-mixed": ["--trainer.precision=bf16-mixed"],
    "fsdp2": ["--trainer.strategy=fsdp2", "--trainer.devices=1"],
    "fsdp2-offload": ["--trainer.strategy=FSDP2", "--trainer.strategy.cpu_offload=true", "--trainer.devices=1"],
    "fsdp1": ["--trainer=configs/parallel/fsdp1.yaml", "--trainer.devices=1"],
}


@pytest.mark.parametrize("precision", PRECISIONS.values(), ids=PRECISIONS)
def test_training_and_testing_run_there(tmp_path: Path, tiny: list[str], precision: list[str]) -> None:
    words = [word for word in tiny if "accelerator" not in word]
    words += ["--trainer.accelerator=gpu", f"--trainer.default_root_dir={tmp_path}", *precision]
    words += ["--trainer.gradient_clip_val=1.0", "--checkpoint.in_background=true"]
    LitPiCLI(["fit", *words, "--trainer.max_steps=10", "--trainer.limit_val_batches=0"])
    LitPiCLI(["fit", *words, "--trainer.max_steps=20", "--trainer.limit_val_batches=0", "--ckpt_path=last"])
    LitPiCLI(["test", *words, "--ckpt_path=last", "--trainer.callbacks+=AttentionBounds"])
    records = json.loads((tmp_path / "results.json").read_text())["records"]
    assert {record["kind"] for record in records} == {"perplexity_curve", "attention_bounds"}
    assert records[0]["protocol"]["compute_dtype"] == "bfloat16"


def test_offloaded_activations_leave_the_pinned_memory_at_the_end(tmp_path: Path, tiny: list[str]) -> None:
    words = [word for word in tiny if "accelerator" not in word]
    words += ["--trainer.accelerator=gpu", f"--trainer.default_root_dir={tmp_path}", "--trainer.max_steps=2"]
    words += ["--model.activation_checkpointing.mode=full", "--model.activation_checkpointing.offload=true"]
    torch.cuda.reset_peak_host_memory_stats()
    LitPiCLI(["fit", *words, "--trainer.limit_val_batches=0"])
    pinned = torch.cuda.host_memory_stats()
    assert pinned["allocated_bytes.current"] < pinned["allocated_bytes.peak"] / 2


DOCUMENTS = {300: [[5, 130, 1, 164], [300]], 256: [[128, 128], [1, 255]], 130: [[60, 70], [129, 1]]}
"""Lengths of documents in two rows, by sequence length."""


@pytest.fixture
def graphs() -> Iterator[None]:
    """Dynamo compiles a function for so many shapes only: as many as one process trains with, not as one tests."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def packed(seq: int, device: str) -> dict[str, torch.Tensor]:
    lengths = DOCUMENTS[seq]
    batch = {
        "input_ids": TOKENS[:, :seq],
        "targets": TOKENS[:, 1 : seq + 1],
        "position_ids": torch.stack([torch.cat([torch.arange(length) for length in row]) for row in lengths]),
        "document_ids": torch.stack([torch.repeat_interleave(torch.tensor(row)) for row in lengths]),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def packing_model(
    head_dim: int, kv_heads: int, window: int | None = None, position: PositionStrategy | None = None
) -> LanguageModel:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=97, hidden_size=128, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=kv_heads, head_dim=head_dim, max_position_embeddings=64, initializer_range=0.1,
        sliding_window=window,
    )  # fmt: skip
    llm = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)
    return LanguageModel(llm.double(), position or Interpolate(scale=4), Rope(head_dim, 1e4, 64))


def learnt(model: LanguageModel, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Scores and gradients, float64 on the CPU."""
    model.zero_grad()
    scores = model(**batch)
    scores.sum().backward()
    return [tensor.detach().double().cpu() for tensor in (scores, *(p.grad for p in model.parameters()))]


def learnt_alone(model: LanguageModel, seq: int) -> list[torch.Tensor]:
    """The same of every document in a forward of its own."""
    model.zero_grad()
    rows = []
    for row, lengths in enumerate(DOCUMENTS[seq]):
        parts = zip(TOKENS[row, :seq].split(lengths), TOKENS[row, 1 : seq + 1].split(lengths), strict=True)
        rows.append(torch.cat([model(ids[None], wanted[None], context_length=seq)[0] for ids, wanted in parts]))
    torch.stack(rows).sum().backward()
    return [torch.stack(rows).detach(), *(p.grad.clone() for p in model.parameters())]


def errors(found: list[torch.Tensor], expected: list[torch.Tensor]) -> list[float]:
    """Of scores and of each gradient, relative to its size."""
    return [float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)]


def refuse(*arguments: object, **options: object) -> NoReturn:
    raise AssertionError("not FlexAttention")


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "autocast"])
@pytest.mark.parametrize(("seq", "head_dim", "kv_heads"), [(300, 48, 4), (256, 64, 2), (130, 128, 1), (300, 128, 4)])
@pytest.mark.usefixtures("graphs")
def test_packed_documents_are_learnt_as_if_alone(
    seq: int, head_dim: int, kv_heads: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = packing_model(head_dim, kv_heads)
    expected = learnt_alone(model, seq)
    model.to("cuda", torch.bfloat16 if precision == "bfloat16" else torch.float32)
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "autocast"):
        with monkeypatch.context() as patch:
            patch.setattr(language_model_module, "blocks_are_fastest", lambda *_: False)
            dense = errors(learnt(model, packed(seq, "cuda")), expected)
        monkeypatch.setattr(attention, "sdpa_attention_forward", refuse)
        flex = errors(learnt(model, packed(seq, "cuda")), expected)
    assert max(flex) < (1e-4 if precision == "float32" else 0.1)
    for ours, theirs in zip(flex, dense, strict=True):
        assert ours < 2 * theirs + 1e-5


KERNELS = ["flex_attention", "flash_attn"]


def take(kernel: str, model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one of them compute the attention of a model in bfloat16, and nothing else."""
    if kernel == "flash_attn":
        try:
            model.use_package(torch.device("cuda"), torch.bfloat16)
        except UserError as error:
            pytest.skip(str(error))
    monkeypatch.setattr(attention, "sdpa_attention_forward", refuse)
    monkeypatch.setattr(attention, "window_attention", refuse)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("documents", [True, False], ids=["packed", "whole"])
@pytest.mark.parametrize(("head_dim", "kv_heads", "window"), [(64, 2, 100), (128, 1, 17), (128, 4, 299), (64, 4, None)])
@pytest.mark.usefixtures("graphs")
def test_windows_and_documents_are_learnt_as_under_a_dense_mask(
    head_dim: int, kv_heads: int, window: int | None, documents: bool, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = packing_model(head_dim, kv_heads, window)
    batch = packed(300, "cpu")
    if not documents:
        del batch["position_ids"], batch["document_ids"]
    expected = learnt(model, batch)  # under a matrix, in float64
    model.to("cuda", torch.bfloat16)
    batch = move_data_to_device(batch, torch.device("cuda"))
    with monkeypatch.context() as patch:
        patch.setattr(language_model_module, "blocks_are_fastest", lambda *_: False)
        dense = errors(learnt(model, batch), expected)
    if window is not None or documents or kernel == "flash_attn":
        take(kernel, model, monkeypatch)
    for compiled in (False, True):
        for layer in model.layer_forwards:
            layer.compiled, layer.mode = compiled, "attention_saved" if compiled else "none"
        found = errors(learnt(model, batch), expected)
        assert max(found) < 0.1
        for ours, theirs in zip(found, dense, strict=True):
            assert ours < 2 * theirs + 1e-5


@pytest.mark.parametrize(
    ("kernel", "precision"), [(None, "bf16-mixed"), ("flash_attn", "bf16-mixed"), ("flash_attn", "fsdp2")]
)
@pytest.mark.usefixtures("graphs")
def test_a_mistral_with_a_window_trains_compiled(
    tmp_path: Path, tiny: list[str], kernel: str | None, precision: str, caplog: pytest.LogCaptureFixture
) -> None:
    if kernel is not None:
        try:
            name = package(torch.device("cuda")).name
        except UserError as error:
            pytest.skip(str(error))
    config = MistralConfig(
        vocab_size=264, hidden_size=128, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=64, max_position_embeddings=1024, sliding_window=100,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "mistral")
    words = [word for word in tiny if "accelerator" not in word and "model.llm" not in word and "length=" not in word]
    words += ["--model.llm=Pretrained", f"--model.llm.path={tmp_path / 'mistral'}", "--data.tokenizer=bytes"]
    words += ["--trainer.accelerator=gpu", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    words += [*PRECISIONS[precision], "--data.context_length=512", "--data.packing=packed"]
    words += [] if kernel is None else [f"--model.attention={kernel}"]
    with caplog.at_level(logging.INFO):
        LitPiCLI(["fit", *words, "--trainer.max_steps=5", "--trainer.limit_val_batches=0"])
        LitPiCLI(["test", *words, "--ckpt_path=last"])
    uses = "flex_attention" if kernel is None else name
    assert f"{uses} where a sequence holds several documents or a layer has a window" in caplog.text
    protocol = json.loads((tmp_path / "run" / "throughput.json").read_text())["protocol"]
    assert protocol["compiled"]
    assert kernel is None or protocol["attention_kernel"] == name


@pytest.mark.parametrize("precision", [[], *list(PRECISIONS.values())[:3]], ids=["float32", *list(PRECISIONS)[:3]])
@pytest.mark.usefixtures("graphs")
def test_the_equality_check_passes_there(
    tmp_path: Path, tiny: list[str], precision: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    words = [word.replace("heads: 4", "heads: 2") for word in tiny if "accelerator" not in word]
    words += ["--trainer.accelerator=gpu", f"--trainer.default_root_dir={tmp_path}", *precision]
    words += ["--trainer.max_steps=2", "--trainer.limit_val_batches=0"]
    with caplog.at_level(logging.INFO):
        LitPiCLI(["fit", *words])
    assert "Stock transformers: losses of" in caplog.text


def test_the_equality_check_of_a_large_model_takes_two_seconds() -> None:
    seconds = {}
    for size in ("2m", "7b"):  # the small one loads what every run needs: cuDNN, cuBLAS, Dynamo
        torch.set_default_dtype(torch.bfloat16)
        try:
            with torch.device("cuda"):
                llm, rope = FromScratch(size).build()
        finally:
            torch.set_default_dtype(torch.float32)
        model = LanguageModel(llm.eval(), Interpolate(scale=4), rope)
        torch.cuda.synchronize()
        start = time.perf_counter()
        assert check_weights(model, model, torch.bfloat16).holds
        torch.cuda.synchronize()
        seconds[size] = time.perf_counter() - start
    assert seconds["7b"] < 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.usefixtures("graphs")
def test_compiled_layers_learn_the_same_from_one_graph(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    model = packing_model(64, 2)
    expected = learnt_alone(model, 300)
    monkeypatch.setattr(attention, "sdpa_attention_forward", refuse)
    model.to("cuda", dtype)
    plain = errors(learnt(model, packed(300, "cuda")), expected)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for layer in model.layer_forwards:
        layer.compiled = True
    for _ in range(3):
        batch = packed(300, "cuda")
        for ours, theirs in zip(errors(learnt(model, batch), expected), plain, strict=True):
            assert ours < 2 * theirs + 1e-5
    other = packed(300, "cuda") | {"document_ids": torch.arange(300, device="cuda").expand(2, -1) // 70}
    model(**other).sum().backward()
    # Of the layers, of block masks, of the loss and of its gradient.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 4


@pytest.mark.parametrize("position", [Interpolate(4), SelfExtend(4, 16)], ids=["interpolate", "self-extend"])
def test_packed_documents_in_float64(position: PositionStrategy) -> None:
    model = packing_model(64, 2, position=position)
    with torch.no_grad():
        expected = model(**packed(300, "cpu"))
        found = model.cuda()(**packed(300, "cuda"))
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-5)  # angles are float32


@pytest.mark.parametrize("precision", PRECISIONS.values(), ids=PRECISIONS)
@pytest.mark.usefixtures("graphs")
def test_the_isolation_probe_knows_flex_attention(
    tmp_path: Path,
    tiny: list[str],
    precision: list[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [word.replace("heads: 4", "heads: 2") for word in tiny if "accelerator" not in word]  # of 16 dimensions
    words += ["--trainer.accelerator=gpu", f"--trainer.default_root_dir={tmp_path}", *precision]
    words += ["--trainer.callbacks=[IsolationProbe]", "--trainer.max_steps=2", "--trainer.limit_val_batches=0"]
    with caplog.at_level(logging.INFO):
        LitPiCLI(["fit", *words])
    assert "flex_attention where a sequence holds several documents" in caplog.text
    assert "Isolation probe: documents of a sequence do not see each other" in caplog.text
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, ATTENTION, lambda **asked: None)
    monkeypatch.setattr("lit_pi.module.check_kind", lambda *arguments: None)
    with pytest.raises(UserError, match="document 1 of sequence 0 of a batch leaked into document 2"):
        LitPiCLI(["fit", *words, f"--trainer.default_root_dir={tmp_path / 'leaking'}"])


def test_the_kernel_asked_for_computes_attention(tmp_path: Path, tiny: list[str]) -> None:
    words = [word.replace("heads: 4", "heads: 2") for word in tiny if "accelerator" not in word]
    words += ["--trainer.accelerator=gpu", "--trainer.precision=bf16-true", "--trainer.limit_val_batches=0"]
    try:
        for kernel in ("flash", "cudnn"):
            run = tmp_path / kernel
            where = [f"--trainer.default_root_dir={run}", f"--model.attention={kernel}"]
            LitPiCLI(["fit", *words, *where, "--trainer.max_steps=5"])
            record = json.loads((run / "throughput.json").read_text())
            assert record["protocol"]["attention_kernel"] == f"{kernel}_attention"
            assert record["protocol"]["compiled"]
    finally:
        torch.backends.cuda.enable_cudnn_sdp(True)
        torch.backends.cuda.enable_flash_sdp(True)
