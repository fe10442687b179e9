"""What a step of full fine-tuning costs: `lit-pi fit` against stock transformers, on the same model and batches.

python benchmarks/train_step.py --size 7b --context-length 32768 --output train.json                     # one H200
python benchmarks/train_step.py --size 2m --context-length 256 --batch-size 16 --device cpu              # a laptop

Each row is a process of its own, with random weights and text of the running interpreter's library, for rivals random
bytes. Those are plain loops over stock transformers, or Lightning's litgpt where it is installed: FlashAttention-2
(torch's own), gradient checkpointing of every layer, fused AdamW; on CPUs, no checkpointing. Steps are timed one by
one; medians and ranges are over those after the third.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

STOCHASTIC = ["--model.optimizer=configs/optimizer/adamw_stochastic_rounding.yaml", "--trainer.precision=bf16-true"]
ROWS: dict[str, list[str]] = {
    "bf16": STOCHASTIC,
    "bf16, 8-bit states": ["--model.optimizer=configs/optimizer/adamw_8bit.yaml", "--trainer.precision=bf16-true"],
    "bf16, float32 weights": ["--trainer.precision=bf16-mixed", "--model.optimizer=configs/optimizer/adamw.yaml"],
    "float8": [*STOCHASTIC, "--model.float8=tensorwise"],
    "bf16, Liger kernels, not compiled": [*STOCHASTIC, "--model.compile_layers=false"],
    "float32": ["--model.optimizer=configs/optimizer/adamw.yaml"],
}
"""Options of `lit-pi fit` by row."""

LIGER = """
import os
os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"  # as lit_pi.__main__, before torch is there
from liger_kernel.transformers import apply_liger_kernel_to_llama
apply_liger_kernel_to_llama(cross_entropy=False, fused_linear_cross_entropy=False)
from lit_pi.cli import run
run()
"""
"""The command line with Liger's norms, rotations and activations in transformers' LLaMA."""

Loss = Callable[[Tensor], Tensor]

STOCK = "stock transformers"
WARM_UP = 3


def lit_pi(arguments: argparse.Namespace, row: str, folder: Path) -> dict[str, Any]:
    """Run `lit-pi fit`, and what its `Throughput` has measured."""
    entry = ["-c", LIGER] if "Liger" in row else ["-m", "lit_pi"]
    command = [
        sys.executable, *entry, "fit", "--model.llm=FromScratch", f"--model.llm.size={arguments.size}",
        "--model.position=configs/position/interpolate.yaml", "--data=configs/data/standard_library.yaml",
        f"--data.context_length={arguments.context_length}", f"--data.batch_size={arguments.batch_size}",
        "--data.packing=concatenated", "--data.evaluations={}", f"--trainer.max_steps={arguments.steps + WARM_UP}",
        f"--trainer.accelerator={arguments.device}", "--trainer.devices=1", "--trainer.limit_val_batches=0",
        f"--trainer.accumulate_grad_batches={arguments.accumulate}", "--trainer.enable_progress_bar=false",
        "--checkpoint.save_top_k=0", f"--trainer.default_root_dir={folder}",
        *ROWS[row], *arguments.option,
    ]  # fmt: skip
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode:
        return {"failed": f"exit status {done.returncode}"}
    record = json.loads((folder / "throughput.json").read_text())
    return record | {"seconds": record["step_seconds"], "gib": record.get("peak_gib"), "mfu": record.get("mfu")}


def stock(arguments: argparse.Namespace) -> tuple[nn.Module, Loss]:
    """transformers, every layer checkpointed on GPUs, all logits."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from lit_pi.models.sources.sizes import LLAMA_SIZES

    config = LlamaConfig(**LLAMA_SIZES[arguments.size] | {"max_position_embeddings": arguments.context_length})
    model = LlamaForCausalLM._from_config(config, dtype=torch.get_default_dtype(), attn_implementation="sdpa")
    if arguments.device == "cuda":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model, lambda ids: model(input_ids=ids, labels=ids, use_cache=False).loss


def litgpt(arguments: argparse.Namespace) -> tuple[nn.Module, Loss]:
    """Lightning's litgpt with 7B's shape, its blocks checkpointed on GPUs, logits in chunks as its finetuning does."""
    from litgpt.model import GPT, Block, Config
    from litgpt.utils import chunked_cross_entropy
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

    from lit_pi.models.sources.sizes import LLAMA_SIZES

    size = LLAMA_SIZES[arguments.size]
    model = GPT(
        Config.from_name(
            "Llama-2-7b-hf", block_size=arguments.context_length, padded_vocab_size=size["vocab_size"],
            n_layer=size["num_hidden_layers"], n_head=size["num_attention_heads"],
            n_query_groups=size["num_attention_heads"], n_embd=size["hidden_size"],
            head_size=size["hidden_size"] // size["num_attention_heads"], intermediate_size=size["intermediate_size"],
        )
    )  # fmt: skip
    if arguments.device == "cuda":
        apply_activation_checkpointing(model, check_fn=lambda module: isinstance(module, Block))

    def loss(ids: Tensor) -> Tensor:
        logits = model(ids, lm_head_chunk_size=128)
        logits[-1] = logits[-1][..., :-1, :]
        return chunked_cross_entropy(logits, ids[..., 1:])

    return model, loss


RIVALS: dict[str, Callable[[argparse.Namespace], tuple[nn.Module, Loss]]] = {STOCK: stock, "litgpt": litgpt}
"""Models, and their losses of token ids, in torch's default dtype and device."""


def rival(arguments: argparse.Namespace) -> dict[str, Any]:
    """A plain loop over a rival, in this process."""
    on_gpu = arguments.device == "cuda"
    if on_gpu:
        # One kernel alone, so that another one cannot take its place unseen.
        torch.backends.cuda.enable_cudnn_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        torch.backends.cuda.enable_math_sdp(False)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if on_gpu else torch.float32)
    with torch.device(arguments.device):
        model, loss = RIVALS[arguments.rival](arguments)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=2e-5, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    shape, seconds = (arguments.batch_size, arguments.context_length), []
    for _ in range(arguments.steps + WARM_UP):
        _synchronize(arguments.device)
        start = time.perf_counter()
        for _ in range(arguments.accumulate):
            loss(torch.randint(256, shape, device=arguments.device)).backward()
        optimizer.step()
        optimizer.zero_grad()
        _synchronize(arguments.device)
        seconds.append(time.perf_counter() - start)
    gib = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None
    return {"seconds": seconds[WARM_UP:], "gib": gib, "mfu": None}


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def alone(row: str) -> dict[str, Any]:
    """A plain loop, in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--rival", row]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {"failed": f"exit status {done.returncode}"}


def table(arguments: argparse.Namespace, found: dict[str, dict[str, Any]], device: str) -> str:
    """Medians and ranges, in Markdown."""
    tokens = arguments.accumulate * arguments.batch_size * arguments.context_length
    lines = [
        f"{device}, torch {torch.__version__}; {arguments.size}, batches of {arguments.batch_size} x "
        f"{arguments.context_length:,} tokens, {arguments.accumulate} a step, {arguments.steps} steps\n",
        "| | tokens/s, median (range) | stock = 1 | MFU | GiB |",
        "|:---|---:|---:|---:|---:|",
    ]
    base = statistics.median(found[STOCK]["seconds"]) if "seconds" in found.get(STOCK, {}) else None
    for row, result in found.items():
        if "failed" in result:
            lines.append(f"| {row} | {result['failed']} | | | |")
            continue
        seconds = result["seconds"]
        middle = statistics.median(seconds)
        ratio = f"{base / middle:.2f}" if base else ""
        mfu = f"{result['mfu']:.1%}" if result["mfu"] else ""
        gib = f"{result['gib']:.1f}" if result["gib"] else ""
        rates = f"{tokens / middle:,.0f} ({tokens / max(seconds):,.0f} to {tokens / min(seconds):,.0f})"
        lines.append(f"| {row} | {rates} | {ratio} | {mfu} | {gib} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="7b", help="of `FromScratch`")
    parser.add_argument("--context-length", type=int, default=32_768)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--accumulate", type=int, default=1, help="batches of a step")
    parser.add_argument("--steps", type=int, default=6, help="timed, after 3 that are not")
    parser.add_argument("--rows", nargs="+", default=[STOCK, "bf16"], choices=[*RIVALS, *ROWS])
    parser.add_argument("--option", nargs="+", default=[], help="of `lit-pi fit`, for all of its rows")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--output", type=Path, help="a JSON file for everything measured; the table goes beside it")
    parser.add_argument("--rival", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rival:
        print(json.dumps(rival(arguments)))
        return
    os.environ.setdefault("LIT_PI_CACHE", str(Path.cwd() / ".cache"))
    found: dict[str, dict[str, Any]] = {}
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    with tempfile.TemporaryDirectory() as folder:
        for number, row in enumerate(arguments.rows):
            found[row] = alone(row) if row in RIVALS else lit_pi(arguments, row, Path(folder) / str(number))
            print(table(arguments, found, device), file=sys.stderr)
            if arguments.output:
                arguments.output.write_text(json.dumps({"device": device, "rows": found}, indent=1, default=str))
                arguments.output.with_suffix(".md").write_text(table(arguments, found, device) + "\n")
    print(table(arguments, found, device))


if __name__ == "__main__":
    main()
