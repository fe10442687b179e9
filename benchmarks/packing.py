"""What isolating packed documents costs: training steps on packed rows against unpacked ones, interleaved.

python benchmarks/packing.py --size 7b --context-length 32768 --output packing.json

One step is a forward and a backward pass in bfloat16 with random weights; there is no optimizer. Rows go through the
collate function of training, so a row of one document needs no mask. Every step has new tokens and documents.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from lit_pi.batches import TrainingBatch
from lit_pi.data.sequences import collate
from lit_pi.models import FromScratch, LanguageModel
from lit_pi.models import language_model as language_model_module
from lit_pi.models.attention.kernels import FLEX_ATTENTION, kernel_in_use
from lit_pi.models.training.activation_checkpointing import ActivationCheckpointing
from lit_pi.module import LitLlama
from lit_pi.positions import Interpolate

SIZES: dict[str, dict[str, Any]] = {
    "7b": {"size": "7b"},
    "1b": {
        "config": {
            "vocab_size": 32_000, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
            "num_attention_heads": 32, "num_key_value_heads": 4, "max_position_embeddings": 2048,
        }
    },
    "tiny": {"size": "2m"},
}  # fmt: skip
"""Arguments of `FromScratch`; `1b` is TinyLlama's shape, with grouped queries."""

AVERAGE = 4000
"""Tokens of a short document on average, at most an eighth of the row; lengths are exponentially distributed."""

UNPACKED, DENSE = "unpacked", "dense mask, short documents"


def drawn(seq: int, generator: torch.Generator) -> list[int]:
    """Lengths of a row's short documents."""
    average = min(AVERAGE, seq // 8)
    lengths: list[int] = []
    while (left := seq - sum(lengths)) > 0:
        length = 1 - math.log(1 - float(torch.rand((), generator=generator))) * (average - 1)
        lengths.append(min(round(length), left))
    return lengths


CASES: dict[str, Callable[[int, torch.Generator], list[int]]] = {
    UNPACKED: lambda seq, generator: [seq],
    "packed, short documents": drawn,
    "packed, one document": lambda seq, generator: [seq],
    "packed, two documents": lambda seq, generator: [seq // 2 - 1, seq - seq // 2 + 1],
    DENSE: drawn,
}


def batch_of(case: str, rows: int, seq: int, vocab_size: int, generator: torch.Generator) -> TrainingBatch:
    """Random tokens in documents, as training collates them."""
    items: list[dict[str, Tensor]] = []
    for _ in range(rows):
        tokens = torch.randint(vocab_size, (seq + 1,), generator=generator)
        lengths = CASES[case](seq, generator)
        items.append(
            {
                "input_ids": tokens[:-1],
                "targets": tokens[1:],
                "position_ids": torch.cat([torch.arange(length) for length in lengths]),
                "document_ids": torch.repeat_interleave(torch.tensor(lengths)),
            }
        )
    batch = collate(items)
    return batch._replace(document_ids=None) if case == UNPACKED else batch


def build(arguments: argparse.Namespace) -> LitLlama:
    """The model in bfloat16, on the device, ready to train."""
    fields = SIZES[arguments.size]
    config = dict(fields.get("config", {})) | ({"num_hidden_layers": arguments.layers} if arguments.layers else {})
    source = FromScratch(fields.get("size"), config)
    stretched = Interpolate(scale=max(arguments.context_length / source.config.max_position_embeddings, 1))
    module = LitLlama(source, stretched)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(arguments.device):
        llm, rope = source.build()
    torch.set_default_dtype(torch.float32)
    module.model = LanguageModel(llm, stretched, rope).train()
    ActivationCheckpointing("attention_saved" if arguments.checkpointing else "none").install(module.model, on_gpu=True)
    for layer in module.model.layer_forwards:
        layer.compiled = arguments.compile
    return module


def step(module: LitLlama, batch: TrainingBatch, dense: bool) -> tuple[float, float]:
    """Seconds and peak memory (GB; 0 without a GPU) of a forward and a backward pass."""
    batch = move_data_to_device(batch, next(module.parameters()).device)
    on_gpu = batch.input_ids.is_cuda
    module.zero_grad(set_to_none=True)
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    with patch.object(language_model_module, "blocks_are_fastest", lambda *_: False) if dense else nullcontext():
        module.learn(batch).mean().backward()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start, torch.cuda.max_memory_allocated() / 1e9 if on_gpu else 0.0


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Every case's steps, one of each in turn, after two of each that compile and warm up."""
    module = build(arguments)
    assert module.model is not None
    vocab_size = module.model.llm.config.vocab_size
    generator = torch.Generator().manual_seed(arguments.seed)
    found: dict[str, dict[str, Any]] = {
        case: {"seconds": [], "gigabytes": 0.0, "documents": []} for case in CASES if arguments.dense or case != DENSE
    }
    for repetition in range(-2, arguments.repetitions):
        for case in [case for case in found if "failed" not in found[case]]:
            result = found[case]
            batch = batch_of(case, arguments.batch_size, arguments.context_length, vocab_size, generator)
            try:
                seconds, gigabytes = step(module, batch, dense=case == DENSE)
            except torch.OutOfMemoryError:
                result["failed"] = "out of memory"
                module.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
                continue
            print(f"{'warm-up' if repetition < 0 else repetition}: {case}: {seconds:.3f} s", file=sys.stderr)
            if repetition >= 0:
                documents = int((batch.position_ids == 0).sum()) / arguments.batch_size
                result["seconds"].append(seconds)
                result["documents"].append(documents)
                result["gigabytes"] = max(result["gigabytes"], gigabytes)
            result["kernel"] = kernel(module, batch, dense=case == DENSE)
    return found


def kernel(module: LitLlama, batch: TrainingBatch, dense: bool) -> str:
    """What computes the case's attention."""
    assert module.model is not None
    device, head_dim = module.model.llm.device, module.model.head_dim
    masked = batch.document_ids is not None
    if masked and not dense and module.model.isolates_by_blocks(device):
        return FLEX_ATTENTION
    return kernel_in_use(device, torch.bfloat16, head_dim, batch.input_ids.shape[1], masked)


def report(arguments: argparse.Namespace, found: dict[str, dict[str, Any]]) -> str:
    """A Markdown table of medians, after adding medians and ratios to what was found."""
    tokens = arguments.batch_size * arguments.context_length
    lines = [
        "| rows | documents a row | attention | tokens/s | seconds a step (range) | GB | unpacked = 1 (range) |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for case, result in found.items():
        if "failed" in result:
            lines.append(f"| {case} | | | {result['failed']} | | | |")
            continue
        seconds = result["seconds"]
        # Of steps of one repetition, which ran one after the other.
        ratios = [theirs / ours for ours, theirs in zip(seconds, found[UNPACKED]["seconds"], strict=True)]
        result |= {"median": statistics.median(seconds), "throughput_ratios": ratios}
        result |= {"tokens_per_second": tokens / result["median"], "throughput_ratio": statistics.median(ratios)}
        lines.append(
            f"| {case} | {statistics.mean(result['documents']):.1f} | {result['kernel']} "
            f"| {result['tokens_per_second']:,.0f} "
            f"| {result['median']:.3f} ({min(seconds):.3f} to {max(seconds):.3f}) | {result['gigabytes']:.1f} "
            f"| {result['throughput_ratio']:.3f} ({min(ratios):.3f} to {max(ratios):.3f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="7b")
    parser.add_argument("--layers", type=int, help="fewer layers than the size has")
    parser.add_argument("--context-length", type=int, default=32_768, help="tokens of a row")
    parser.add_argument("--batch-size", type=int, default=1, help="rows of a step")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--checkpointing", action=argparse.BooleanOptionalAction, help="by default for 7b alone")
    parser.add_argument("--dense", action=argparse.BooleanOptionalAction, default=True, help="the dense mask too")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="each layer; by default on GPUs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a JSON file for everything measured")
    arguments = parser.parse_args()
    if arguments.checkpointing is None:
        arguments.checkpointing = arguments.size == "7b"
    if arguments.compile is None:
        arguments.compile = arguments.device.startswith("cuda")
    torch.manual_seed(arguments.seed)
    found = measure(arguments)
    table = report(arguments, found)
    name = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "CPU"
    what = {key: value for key, value in vars(arguments).items() if key != "output"}
    print(f"{name}, torch {torch.__version__}, {', '.join(f'{key} {value}' for key, value in what.items())}\n\n{table}")
    if arguments.output:
        record = {"device": name, "torch": torch.__version__, "arguments": what, "cases": found}
        arguments.output.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
