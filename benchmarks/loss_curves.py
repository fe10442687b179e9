"""Whether fast ways of training learn what plain ones do: loss curves of `lit-pi fit` from one trained model.

python benchmarks/loss_curves.py --hidden-size 512 --layers 6 --output curves                           # one GPU
python benchmarks/loss_curves.py --context-length 128 --batch-size 4 --pretrain-steps 60 --steps 40 --last 10

A small model is pre-trained on the running interpreter's library. From its checkpoint every row extends the context by
Position Interpolation, on the same sequences in the same order for each seed, at the paper's learning rate and warm-up.
The difference between two seeds of `float32 weights` is the noise. The test loss is of documents that were not trained
on; what a row has learnt is its distance from `no update` (a learning rate of 0), set beside that of `float32 weights`.
All rows run in one process, which compiles once for those that can share it.
"""

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.ticker import MaxNLocator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_pi.cli import LitPiCLI
from lit_pi.errors import UserError

BASE, NOTHING = "float32 weights", "no update"
ADAMW = "--model.optimizer=configs/optimizer/adamw.yaml"
BF16 = "--trainer.precision=bf16-true"
STOCHASTIC = [BF16, "--model.optimizer=configs/optimizer/adamw_stochastic_rounding.yaml"]
ROWS: dict[str, list[str]] = {
    BASE: [ADAMW],
    "plain path": [ADAMW, "--model.compile_layers=false", "--model.activation_checkpointing.mode=full"],
    "bf16 weights, stochastic rounding": STOCHASTIC,
    "bf16 weights, 8-bit states": [BF16, "--model.optimizer=configs/optimizer/adamw_8bit.yaml"],
    "bf16 weights, plain AdamW": [BF16, ADAMW],
    "float8": [*STOCHASTIC, "--model.float8=tensorwise"],
    NOTHING: [ADAMW],
}
"""Options of `lit-pi fit` by row; weights are float32 where they do not say `BF16`, on GPUs under bf16-mixed."""

SMOOTHED = 20
"""Steps of the running mean in the picture."""


def common(arguments: argparse.Namespace, run: Path) -> list[str]:
    """Options of all runs."""
    precision = "bf16-mixed" if arguments.device == "cuda" else "32-true"
    return [
        "fit", f"--trainer.accelerator={arguments.device}", "--trainer.devices=1", f"--trainer.precision={precision}",
        "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1", "--trainer.num_sanity_val_steps=0",
        "--trainer.check_val_every_n_epoch=null", f"--trainer.default_root_dir={run}", "--data.train=StandardLibrary",
        "--data.packing=concatenated", "--model.activation_checkpointing.mode=none", *arguments.option,
    ]  # fmt: skip


def pretrain(arguments: argparse.Namespace, run: Path) -> None:
    """Train the model that all rows start from."""
    original = arguments.context_length // arguments.scale
    config = {"max_position_embeddings": original}
    if arguments.hidden_size:
        width = arguments.hidden_size
        config |= {"hidden_size": width, "intermediate_size": 8 * width // 3 // 8 * 8, "num_attention_heads": 8}
    if arguments.layers:
        config["num_hidden_layers"] = arguments.layers
    LitPiCLI([
        *common(arguments, run), "--model.llm=FromScratch", "--model.llm.size=2m",
        f"--model.llm.config={json.dumps(config)}", "--model.position=Extrapolate", ADAMW,
        f"--model.optimizer.lr={arguments.pretrain_lr}", f"--trainer.max_steps={arguments.pretrain_steps}",
        "--trainer.limit_val_batches=0", f"--data.context_length={original}",
        f"--data.batch_size={arguments.scale * arguments.batch_size}", "--data.seed=1000",
    ])  # fmt: skip
    free()


def train(arguments: argparse.Namespace, base: Path, row: str, seed: int, run: Path) -> dict[str, Any]:
    """Losses (nats) of one row's steps, and of the test after them."""
    length = arguments.context_length
    evaluation = {
        "corpus": {"class_path": "StandardLibrary"}, "split": "test", "context_lengths": [length],
        "stride": length // 2, "batch_size": 4, "max_documents": arguments.documents, "max_tokens": 8 * length,
    }  # fmt: skip
    evaluations = {"test": {"class_path": "Perplexity", "init_args": evaluation}}
    LitPiCLI([
        *common(arguments, run), "--model.llm=Pretrained", f"--model.llm.path={base}", "--model.position=Interpolate",
        f"--model.position.scale={arguments.scale}", f"--data.context_length={length}",
        f"--data.batch_size={arguments.batch_size}", f"--data.seed={seed}", f"--seed_everything={seed}",
        f"--data.evaluations={json.dumps(evaluations)}", f"--trainer.max_steps={arguments.steps}",
        f"--trainer.val_check_interval={arguments.steps}", "--checkpoint.save_top_k=0", *ROWS[row],
        f"--model.optimizer.lr={0 if row == NOTHING else arguments.lr}",
    ])  # fmt: skip
    free()
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    losses = [event.value for event in events.Scalars("train/loss")]
    records = {record["kind"]: record for record in json.loads((run / "results.json").read_text())["records"]}
    return {"losses": losses, "test": records["perplexity_curve"]["curve"][0]["token_nll"]}


def free() -> None:
    """Give back the memory of a run that is over."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def report(arguments: argparse.Namespace, found: dict[str, dict[str, Any]], device: str) -> str:
    """A Markdown table of means and differences, after adding them to what was found."""
    for row, result in found.items():
        if "failed" not in result:
            result["means"] = [statistics.mean(run["losses"][-arguments.last :]) for run in result["runs"]]
            result["tests"] = [run["test"] for run in result["runs"]]
            for name in ("means", "tests"):
                pairs = zip(result[name], found[BASE][name], strict=True)
                result[f"{name}_apart"] = [0.0 if row == BASE else own - base for own, base in pairs]
    noise = {name: max(found[BASE][name]) - min(found[BASE][name]) for name in ("means", "tests")}
    start = statistics.mean(found[NOTHING]["tests_apart"])
    lines = [
        f"{device}, torch {torch.__version__}; {arguments.steps} steps of {arguments.batch_size} x "
        f"{arguments.context_length:,} tokens at learning rate {arguments.lr:g}, seeds "
        f"{', '.join(map(str, arguments.seeds))}; losses in nats\n",
        f"| | mean of the last {arguments.last} steps | minus {BASE} | test loss | minus {BASE} | learnt |",
        "|:---|---:|---:|---:|---:|---:|",
    ]
    for row, result in found.items():
        if "failed" in result:
            lines.append(f"| {row} | {result['failed']} | | | | |")
            continue
        cells = [
            "; ".join(f"{value:{form}}" for value in result[name])
            for name, form in (("means", ".4f"), ("means_apart", "+.5f"), ("tests", ".4f"), ("tests_apart", "+.5f"))
        ]
        result["learnt"] = 1 - statistics.mean(result["tests_apart"]) / start
        lines.append(f"| {row} | {' | '.join(cells)} | {result['learnt']:.1%} |")
    lines.append(f"\nSeeds of {BASE} are {noise['means']:.5f} apart in training and {noise['tests']:.5f} in the test.")
    return "\n".join(lines)


def draw(arguments: argparse.Namespace, found: dict[str, dict[str, Any]], path: Path) -> None:
    """Running means of each row's losses minus those of the same seed with float32 weights."""
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    width = min(SMOOTHED, arguments.steps)
    shown = {row: result["runs"] for row, result in found.items() if "runs" in result}
    bases = [np.array(run["losses"]) for run in found[BASE]["runs"]]
    steps = np.arange(width, arguments.steps + 1)
    for number, (row, runs) in enumerate(shown.items()):
        for place, run in enumerate(runs):
            apart = np.convolve(np.array(run["losses"]) - bases[place], np.full(width, 1 / width), "valid")
            label, dashes = row if place == 0 else None, ["-", "--", ":", "-."][place % 4]
            axes.plot(steps, apart, label=label, color=f"C{number}", linestyle=dashes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="step", ylabel=f"loss minus {BASE} (nats), mean of {width} steps")
    axes.set_yscale("symlog", linthresh=1e-3)
    figure.legend(loc="outside upper center", ncols=4, fontsize="small")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden-size", type=int, help="192 by default")
    parser.add_argument("--layers", type=int, help="4 by default")
    parser.add_argument("--context-length", type=int, default=1024, help="of the rows")
    parser.add_argument("--scale", type=int, default=4, help="of the context, over that of pre-training")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--pretrain-steps", type=int, default=300)
    parser.add_argument("--pretrain-lr", type=float, default=1e-3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--last", type=int, default=50, help="steps whose losses are averaged")
    parser.add_argument("--lr", type=float, default=2e-5)
    parser.add_argument("--documents", type=int, default=16, help="of the test")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, help=f"beside `{BASE}`, `{NOTHING}`")
    parser.add_argument("--option", nargs="+", default=[], help="of `lit-pi fit`, for all rows that do not set it")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--output", type=Path, help="stem of a JSON, a Markdown and a PNG file")
    arguments = parser.parse_args()
    os.environ.setdefault("LIT_PI_CACHE", str(Path.cwd() / ".cache"))
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    found: dict[str, dict[str, Any]] = {}
    began = [time.perf_counter()]
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        base = Path(folder) / "base"
        pretrain(arguments, base)
        began.append(time.perf_counter())
        for row in dict.fromkeys([BASE, *arguments.rows, NOTHING]):
            runs = [Path(folder) / f"{len(found)}-{seed}" for seed in arguments.seeds]
            try:
                pairs = zip(arguments.seeds, runs, strict=True)
                found[row] = {"runs": [train(arguments, base, row, seed, run) for seed, run in pairs]}
            except UserError as error:
                found[row] = {"failed": str(error)}
            began.append(time.perf_counter())
    table = report(arguments, found, device)
    seconds = [stop - start for start, stop in pairwise(began)]
    print("seconds of pre-training and of each row:", *(f"{took:.1f}" for took in seconds), file=sys.stderr)
    print(table)
    if arguments.output:
        what = {key: str(value) if isinstance(value, Path) else value for key, value in vars(arguments).items()}
        record = {"device": device, "torch": torch.__version__, "arguments": what, "seconds": seconds, "rows": found}
        arguments.output.with_suffix(".json").write_text(json.dumps(record, indent=1))
        arguments.output.with_suffix(".md").write_text(table + "\n")
        draw(arguments, found, arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
