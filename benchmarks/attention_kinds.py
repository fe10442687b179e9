"""What attention costs by kind: all before, a window, packed documents; by cuDNN, torch's FlashAttention and packages.

python benchmarks/attention_kinds.py --output attention.json                      # layers alone, then training steps
python benchmarks/attention_kinds.py --sequence 512 --window 64 --heads 2 --kv-heads 1 --device cpu --layers 0

Attention alone is a forward and a backward pass of one layer in bfloat16, by lit_pi's own functions. A step is a whole
one, with AdamW, of a model of Mistral-7B's shape with random weights and fewer layers. Every repetition runs each row
once, in turn; figures are medians, ratios those of one repetition. Masks are made once a step for all layers: their
time stands beside.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from packing import drawn
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForCausalLM, MistralConfig
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from lit_pi.errors import UserError
from lit_pi.models import LanguageModel
from lit_pi.models.attention.attend import ATTENTION, attend
from lit_pi.models.attention.masks import Form, Tokens, make_mask, masks_for
from lit_pi.models.training.activation_checkpointing import ActivationCheckpointing
from lit_pi.positions import Extrapolate, Rope

WARM_UP = 3


class Kind(NamedTuple):
    """Who sees whom, and by what.

    Attributes:
        form: how the mask is written; `local` leaves causal attention to torch.
        window: whether tokens see a window alone.
        packed: whether a sequence holds several documents.
        backend: the only one that torch may take.
    """

    form: Form
    window: bool = False
    packed: bool = False
    backend: SDPBackend | None = None


CUDNN, PACKAGE = "cuDNN, all before", "flash_attn, all before"
KINDS = {
    CUDNN: Kind("local", backend=SDPBackend.CUDNN_ATTENTION),
    "torch's FlashAttention, all before": Kind("local", backend=SDPBackend.FLASH_ATTENTION),
    "FlexAttention, all before": Kind("blocks"),
    PACKAGE: Kind("lengths"),
    "FlexAttention, window": Kind("blocks", window=True),
    "flash_attn, window": Kind("lengths", window=True),
    "FlexAttention, packed": Kind("blocks", packed=True),
    "flash_attn, packed": Kind("lengths", packed=True),
    "FlexAttention, packed, window": Kind("blocks", window=True, packed=True),
    "flash_attn, packed, window": Kind("lengths", window=True, packed=True),
}

STEP = "step, all before"
STEPS = {
    STEP: Kind("local"),
    "step, window": Kind("blocks", window=True),
    "step, flash_attn, all before": Kind("lengths"),
    "step, flash_attn, window": Kind("lengths", window=True),
}


class Result(NamedTuple):
    """Seconds of every repetition.

    Attributes:
        seconds: of what is timed.
        mask: of making the mask, where there is one.
        failed: why there are none.
    """

    seconds: list[float]
    mask: list[float]
    failed: str | None = None


def timed(run: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Seconds, and what came out."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    found = run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, found


def in_turn(cases: dict[str, Callable[[], tuple[float, float]]], repetitions: int) -> dict[str, Result]:
    """Run every case once a repetition; the first ones compile, and do not count."""
    found = {name: Result([], []) for name in cases}
    for repetition in range(-WARM_UP, repetitions):
        for name, run in cases.items():
            if found[name].failed is not None:
                continue
            try:
                seconds, mask = run()
            except (AssertionError, RuntimeError, UserError, ValueError) as error:
                found[name] = Result([], [], str(error).splitlines()[0][:200])
                print(f"{name}: {error}", file=sys.stderr)
                continue
            if repetition >= 0:
                found[name].seconds.append(seconds)
                found[name].mask.append(mask)
    return found


def layers_alone(arguments: argparse.Namespace) -> dict[str, Callable[[], tuple[float, float]]]:
    """A forward and a backward pass of one layer's attention, by kind."""
    device, seq = arguments.device, arguments.sequence
    generator = torch.Generator().manual_seed(0)
    documents = torch.repeat_interleave(torch.tensor(drawn(seq, generator)))[None].to(device)
    shape = (1, seq, arguments.heads, arguments.head_dim)
    kv_shape = (1, seq, arguments.kv_heads, arguments.head_dim)
    query, key, value = (
        torch.randn(each, device=device, dtype=torch.bfloat16).transpose(1, 2).requires_grad_()
        for each in (shape, kv_shape, kv_shape)
    )
    gradient = torch.randn(shape, device=device, dtype=torch.bfloat16)
    module: Any = nn.Module()
    module.num_key_value_groups, module.is_causal = arguments.heads // arguments.kv_heads, True

    def run(kind: Kind) -> tuple[float, float]:
        tokens = Tokens(kind.form, documents if kind.packed else None, everywhere=kind.form != "local")
        function = sliding_window_causal_mask_function(arguments.window) if kind.window else causal_mask_function
        options: dict[str, Any] = {"batch_size": 1, "q_length": seq, "kv_length": seq, "mask_function": function}
        with masks_for(tokens):
            of_mask, mask = timed(lambda: make_mask(**options, device=torch.device(device)), device)
        allowed: AbstractContextManager[Any] = nullcontext() if kind.backend is None else sdpa_kernel(kind.backend)

        def learn() -> None:
            with allowed:
                output, _ = attend(module, query, key, value, mask)
            torch.autograd.grad(output, (query, key, value), gradient)

        return timed(learn, device)[0], of_mask

    return {name: partial(run, kind) for name, kind in KINDS.items()}


def whole_steps(arguments: argparse.Namespace) -> dict[str, Callable[[], tuple[float, float]]]:
    """Training steps of one model, whose window comes and goes."""
    config = MistralConfig(num_hidden_layers=arguments.layers, max_position_embeddings=arguments.sequence)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(arguments.device):
        llm = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION)
    torch.set_default_dtype(torch.float32)
    model = LanguageModel(llm, Extrapolate(), Rope(128, 1e4, arguments.sequence)).train()
    ActivationCheckpointing("attention_saved").install(model, on_gpu=True)
    for layer in model.layer_forwards:
        layer.compiled = True
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    generator = torch.Generator(arguments.device).manual_seed(0)

    def run(kind: Kind) -> tuple[float, float]:
        config.sliding_window = llm.config.sliding_window = arguments.window if kind.window else None
        model.package = None
        if kind.form == "lengths":
            model.use_package(torch.device(arguments.device), torch.bfloat16)
        tokens = torch.randint(32_000, (1, arguments.sequence + 1), device=arguments.device, generator=generator)

        def step() -> None:
            model(tokens[:, :-1], tokens[:, 1:]).mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        return timed(step, arguments.device)[0], 0.0

    return {name: partial(run, kind) for name, kind in STEPS.items()}


def table(found: dict[str, Result], first: str) -> str:
    """Medians and ratios, in Markdown."""
    lines = [
        f"| | ms, median (range) | {first} = 1, median (range) | mask, ms |",
        "|:---|---:|---:|---:|",
    ]
    for name, result in found.items():
        if result.failed is not None:
            lines.append(f"| {name} | {result.failed} | | |")
            continue
        times = [1e3 * each for each in result.seconds]
        ratios = [theirs / ours for ours, theirs in zip(result.seconds, found[first].seconds, strict=False)] or [0.0]
        lines.append(
            f"| {name} | {statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f}) "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) "
            f"| {1e3 * statistics.median(result.mask):.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequence", type=int, default=32_768, help="tokens")
    parser.add_argument("--window", type=int, default=4096, help="tokens")
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=32)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4, help="of the model whose steps are timed; 0 for no steps")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--output", type=Path, help="a JSON file for everything measured; the tables go beside it")
    arguments = parser.parse_args()
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    given = {key: value for key, value in vars(arguments).items() if key != "output"}
    text = [f"{name}, torch {torch.__version__}, {', '.join(f'{key} {value}' for key, value in given.items())}"]
    record: dict[str, Any] = {"device": name, "torch": torch.__version__, "arguments": given}
    parts = {"layers": (layers_alone, CUDNN), "steps": (whole_steps, STEP)}
    for part, (cases, first) in parts.items():
        if part == "steps" and not arguments.layers:
            continue
        found = in_turn(cases(arguments), arguments.repetitions)
        text.append(table(found, first))
        print("\n\n".join(text[-2:]), flush=True)
        record[part] = {name: result._asdict() for name, result in found.items()}
        if arguments.output:
            arguments.output.write_text(json.dumps(record, indent=1))
            arguments.output.with_suffix(".md").write_text("\n\n".join(text) + "\n")


if __name__ == "__main__":
    main()
