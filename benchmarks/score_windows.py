"""What scoring sliding windows costs: lit_pi's engine against a plain loop, on the same model and the same windows.

python benchmarks/score_windows.py --size 2m --context-lengths 128 256 512 1024 2048 --stride 16 --output cpu
python benchmarks/score_windows.py --size 7b --context-lengths 2048 4096 8192 16384 32768 --stride 256 --device cuda \
    --documents 100 --document-tokens 100000 --output gpu

The plain loop is that of the public scripts: a run for each context length, one window at a time, all logits,
FlashAttention-2 on GPUs, on stock transformers. Both sides score the same windows in turn, and their mean losses are
compared. Of each shape of window a few are run; times of all windows are extrapolated from them by exact counts. The
engine is also timed with a pass for each context length, and the share of it that one pass takes is set beside that of
operations. With `--losses`, the directory of a run of all windows that were scored beside disjoint ones (`disjoint:
true`), it is added how many windows a 95 % interval of half a per cent takes, with disjoint windows of the longest
context length, of every one or of none as a control, and the ratio when only those are run, the disjoint windows and
the pilot included.
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
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet
import torch
import torch.nn.functional as F
from scipy.stats import t as student
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import LlamaConfig, LlamaForCausalLM

from lit_pi.batches import ScoringBatch
from lit_pi.evaluations.perplexity.perplexity import WindowBatches
from lit_pi.evaluations.perplexity.sampled.control import expected_losses
from lit_pi.evaluations.perplexity.sampled.pilot import PILOT_WINDOWS
from lit_pi.evaluations.perplexity.sampled.sampling import PER_BLOCK, WindowSample
from lit_pi.evaluations.perplexity.token_scores import TokenLosses, series_of
from lit_pi.evaluations.perplexity.window_sums import window_sums
from lit_pi.evaluations.perplexity.windows import Shape, Window, WindowPlan
from lit_pi.evaluations.records import load_records
from lit_pi.models import FromScratch, LanguageModel
from lit_pi.positions import Interpolate

PRECISION = 0.005


class Documents:
    """Random tokens, as far as `WindowBatches` asks a store."""

    def __init__(self, count: int, tokens: int, vocab_size: int, seed: int) -> None:
        self._tokens = np.random.default_rng(seed).integers(0, vocab_size, (count, tokens))

    def document(self, index: int) -> np.ndarray:
        """Token ids of a document."""
        return self._tokens[index]


class Measured(NamedTuple):
    """Windows of one shape.

    Attributes:
        windows: how many there are.
        later: whether they are not their documents' first ones.
        engine: seconds of one window, by repetition.
        plain: the same of the plain loop, all context lengths together.
        apart: the same of the engine with a pass for each context length.
        operations: of one pass, and of a pass for each context length.
    """

    windows: int
    later: bool
    engine: list[float]
    plain: list[float]
    apart: list[float]
    operations: tuple[float, float]


class Apart(NamedTuple):
    """Seconds of the engine for disjoint windows, by repetition: of each context length, and those a pilot needs."""

    whole: list[list[float]]
    pilot: list[float]


def build(arguments: argparse.Namespace) -> tuple[LanguageModel, LlamaForCausalLM]:
    """The model twice over the same weights: in lit_pi, and in stock transformers."""
    source = FromScratch(arguments.size, {"num_hidden_layers": arguments.layers} if arguments.layers else {})
    scale = max(max(arguments.context_lengths) / source.config.max_position_embeddings, 1.0)
    torch.set_default_dtype(getattr(torch, arguments.dtype))
    with torch.device(arguments.device):
        llm, rope = source.build()
        position = Interpolate(scale=scale)
        config = LlamaConfig(**source.config.to_dict() | {"rope_parameters": position.rope_parameters(rope)})
        with torch.device("meta"):
            stock = LlamaForCausalLM._from_config(config, attn_implementation="sdpa")
    torch.set_default_dtype(torch.float32)
    stock.load_state_dict(llm.state_dict(), assign=True)
    with torch.device(arguments.device):
        stock.model.rotary_emb = type(stock.model.rotary_emb)(config)
    model = LanguageModel(llm, position, rope).eval()
    for layer in model.layer_forwards:
        layer.compiled = arguments.device == "cuda"
    return model, stock.eval()


def timed(step: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Seconds of a step, and what it gives."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    found = step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, found


def plain_window(stock: LlamaForCausalLM, tokens: Tensor, scored: range) -> Tensor:
    """Losses in nats, in the style of the public scripts: all logits, of which the scored ones count."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION) if tokens.is_cuda else nullcontext():
        logits = stock(tokens[None, : scored.stop], use_cache=False).logits[0]
    labels = torch.full((scored.stop,), -100, device=tokens.device)
    labels[scored.start :] = tokens[scored.start + 1 : scored.stop + 1]
    return F.cross_entropy(logits.float(), labels, reduction="none")[scored.start :]


def operations(config: LlamaConfig, tokens: int, scored: int) -> float:
    """Multiplications and additions of a forward, of attention those under the causal mask."""
    width, heads = config.hidden_size, config.num_attention_heads
    groups = (config.num_key_value_heads or heads) / heads
    weights = width * (width * (2 + 2 * groups) + 3 * config.intermediate_size)
    return config.num_hidden_layers * 2 * tokens * (weights + width * tokens) + 2 * width * config.vocab_size * scored


class Inputs:
    """Windows of documents as tensors on a device."""

    def __init__(self, arguments: argparse.Namespace, vocab_size: int) -> None:
        self.batch_size, self.device = arguments.batch_size, arguments.device
        self.lengths = np.full(arguments.documents, arguments.document_tokens)
        self._documents: Any = Documents(
            min(len(self.lengths), 2), arguments.document_tokens, vocab_size, arguments.seed
        )

    def batch(self, shape: Shape, window: Window) -> tuple[ScoringBatch, Tensor, Tensor, Tensor]:
        """A batch of copies of a window, and its tokens, targets and scored positions."""
        planned = [(shape, (window,) * self.batch_size)]
        batch = WindowBatches("x", self._documents, np.arange(2), self.lengths[:2], 1, planned)[0]
        ids, targets, scored = (part.to(self.device) for part in (batch.input_ids, batch.targets, batch.scored))
        return batch, ids, targets, scored


def spread_out(windows: list[Window], count: int) -> list[Window]:
    """As many windows of the documents that there are, and one more."""
    own = [window for window in windows if window.document < 2]
    return [own[place] for place in np.linspace(0, len(own) - 1, count + 1).round().astype(int)]


def apart_seconds(arguments: argparse.Namespace, model: LanguageModel, inputs: Inputs, plan: WindowPlan) -> Apart:
    """Time the disjoint windows of every shape."""
    whole, pilot = [[0.0] * arguments.windows for _ in plan.context_lengths], [0.0] * arguments.windows
    tokens = inputs.lengths.tolist()
    held = plan.disjoint_holding(pilot_windows(plan, tokens, arguments.seed), tokens)
    for place, disjoint in enumerate(plan.disjoint()):
        for shape, windows in disjoint.group(tokens).items():
            for repetition, window in enumerate(spread_out(windows, arguments.windows), -1):
                _, ids, targets, scored = inputs.batch(shape, window)
                seconds, _ = timed(lambda: model(ids, targets, scored=scored), arguments.device)  # noqa: B023
                if repetition >= 0:
                    whole[place][repetition] += len(windows) * seconds / arguments.batch_size
                    pilot[repetition] += len(held.get(shape, ())) * seconds / arguments.batch_size
    return Apart(whole, pilot)


def pilot_windows(plan: WindowPlan, tokens: list[int], seed: int) -> dict[Shape, list[Window]]:
    """The windows that a pilot draws, by shape."""
    sample = WindowSample(
        np.array([plan.count(plan.context_lengths[0], count) for count in tokens]), PILOT_WINDOWS, seed
    )
    found = {}
    for shape, windows in plan.group(tokens).items():
        document, begin = np.array(windows).T
        drawn = sample.includes(document, begin // plan.stride) & (begin > 0)
        found[shape] = [windows[place] for place in np.flatnonzero(drawn)]
    return found


def compare(arguments: argparse.Namespace) -> tuple[list[Measured], Apart, dict[int, float], WindowPlan, np.ndarray]:
    """Time both sides on windows of every shape; their mean losses' differences in nats by context length."""
    model, stock = build(arguments)
    plan = WindowPlan(arguments.context_lengths, arguments.stride, "every")
    inputs = Inputs(arguments, stock.config.vocab_size)
    lengths = inputs.lengths
    shapes: dict[Shape, list[Window]] = plan.group(lengths.tolist())
    found: list[Measured] = []
    losses: dict[int, tuple[list[float], list[tuple[float, int]]]] = {
        length: ([], []) for length in plan.context_lengths
    }
    for shape, windows in shapes.items():
        engine: list[float] = []
        plain: list[float] = []
        separate: list[float] = []
        for repetition, window in enumerate(spread_out(windows, arguments.windows)):  # the first one warms up
            batch, ids, targets, scored = inputs.batch(shape, window)
            whole = torch.cat([ids[0], targets[0, -1:].clamp(min=0)])
            seconds, token_nll = timed(lambda: model(ids, targets, scored=scored), arguments.device)  # noqa: B023
            spent = one_by_one = 0.0
            for span, (length, positions) in zip(batch.spans, shape.positions, strict=True):
                # A window that reaches the document's end scores fewer.
                positions = range(positions.start, min(positions.stop, int(batch.lengths[0]) - 1))
                once, expected = timed(lambda: plain_window(stock, whole, positions), arguments.device)  # noqa: B023
                spent += once
                part, size = slice(span.start, span.stop), min(length, shape.length)
                step = lambda: model(ids[:, :size], targets[:, part], scored=scored[part])  # noqa: B023, E731
                one_by_one += timed(step, arguments.device)[0]
                losses[length][0].append(token_nll[0, span.start : span.start + len(positions)].sum().item())
                losses[length][1].append((expected.sum().item(), len(positions)))
            if repetition:
                engine.append(seconds / arguments.batch_size)
                plain.append(spent)
                separate.append(one_by_one / arguments.batch_size)
        work = (
            operations(stock.config, shape.length, len(shape.scored())),
            sum(
                operations(stock.config, min(length, shape.length), len(positions))
                for length, positions in shape.positions
            ),
        )
        found.append(Measured(len(windows), windows[0].begin > 0, engine, plain, separate, work))
        print(f"{shape.length} tokens: {len(windows)} windows, {found[-1]}", file=sys.stderr)
    differences = {
        length: (sum(ours) - sum(nll for nll, _ in theirs)) / sum(count for _, count in theirs)
        for length, (ours, theirs) in losses.items()
    }
    apart = apart_seconds(arguments, model, inputs, plan) if arguments.losses else Apart([], [])
    return found, apart, differences, plan, lengths


def windows_for_precision(run: Path, units: int) -> list[int]:
    """Windows of so many that give an interval of half a per cent, by a run's own losses.

    Returns:
        With disjoint windows of the longest context length as a control, of every one, and without.
    """
    record = [entry for entry in load_records(run) if entry["kind"] == "perplexity_curve"][-1]
    protocol = record["protocol"]
    if protocol["sampling"] is not None or not protocol["disjoint"]:
        sys.exit(
            f"{run} has run a sample of windows, or no disjoint ones: test it with all of them, and disjoint: true"
        )
    table = pyarrow.parquet.read_table(run / record["table"].replace(".parquet", "-tokens.parquet"))
    counts = np.bincount(table["document"].to_numpy())
    plan = WindowPlan(protocol["context_lengths"], protocol["stride"], protocol["bos"])
    every = plan.disjoint()
    nll = {series: table[str(series)].to_numpy() for series in series_of([plan, *every])}
    losses = TokenLosses(np.concatenate(([0], np.cumsum(counts))), nll)
    controls, needed = [expected_losses(losses, plan, disjoint) for disjoint in (every[-1:], every)], [0, 0, 0]
    for length in plan.context_lengths:
        windows, *expected = (window_sums(values, plan, length, 0, None) for values in (losses, *controls))
        later = (windows.number > 0) & (windows.tokens > 0)
        mean = windows.nll[later].sum() / windows.tokens[later].sum()
        for place, known in enumerate((*(each.nll for each in expected), mean * windows.tokens)):
            deviation = (windows.nll - known)[later] / windows.tokens[later].mean()
            needed[place] = max(needed[place], _needed(deviation, units))
    return needed


def _needed(deviation: np.ndarray, units: int) -> int:
    """Windows to draw where neighbours spread as these do, which follow one another."""
    number = PER_BLOCK
    while True:
        number = PER_BLOCK * math.ceil((number + 1) * 1.01 / PER_BLOCK)
        parts = min(max(len(deviation) * number // (PER_BLOCK * units), 1), len(deviation) // 2)
        variance = np.mean([np.var(block, ddof=1) for block in np.array_split(deviation, parts)])
        error = np.sqrt(variance / number * max(1 - number / units, 0.0))
        if student.ppf(0.975, number // PER_BLOCK) * error <= np.log1p(PRECISION):
            return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="2m", help="of `FromScratch`")
    parser.add_argument("--layers", type=int, help="other than the size's")
    parser.add_argument("--context-lengths", type=int, nargs="+", default=[128, 256, 512, 1024, 2048])
    parser.add_argument("--stride", type=int, default=16)
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--document-tokens", type=int, default=6250)
    parser.add_argument("--windows", type=int, default=7, help="timed of each shape")
    parser.add_argument("--batch-size", type=int, default=1, help="windows of one forward of the engine")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--losses", type=Path, help="run directory of a test of all windows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="stem of a JSON and a Markdown file")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    with torch.inference_mode():
        shapes, disjoint, differences, plan, lengths = compare(arguments)
    repetitions = range(arguments.windows)
    engine = [sum(shape.windows * shape.engine[r] for shape in shapes) for r in repetitions]
    plain = [sum(shape.windows * shape.plain[r] for shape in shapes) for r in repetitions]
    apart = [sum(shape.windows * shape.apart[r] for shape in shapes) for r in repetitions]
    ratios, ratios_apart = ([slow / fast for slow, fast in zip(plain, times, strict=True)] for times in (engine, apart))
    one, each = (sum(shape.windows * shape.operations[way] for shape in shapes) for way in (0, 1))
    predicted, measured = one / each, statistics.median(once / five for once, five in zip(engine, apart, strict=True))
    rows = [
        ("plain loop", plain, [1.0] * len(plain)),
        ("lit_pi, a pass for each context length", apart, ratios_apart),
        ("lit_pi, one pass", engine, ratios),
    ]
    windows = sum(shape.windows for shape in shapes)
    record: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU",
        "torch": torch.__version__, "threads": torch.get_num_threads(), "windows": windows,
        "windows_of_the_plain_loop": sum(plan.count(L, int(n)) for L in plan.context_lengths for n in lengths),
        "mean_nats_apart": differences, "plain_seconds": plain, "engine_seconds": engine, "ratios": ratios,
        "seconds_apart": apart, "one_pass": {"measured": measured, "predicted": predicted},
        "arguments": {key: str(value) if isinstance(value, Path) else value for key, value in vars(arguments).items()},
    }  # fmt: skip
    if arguments.losses:
        later = sum(shape.windows for shape in shapes if shape.later)
        seconds = [disjoint.whole[-1], [sum(passes) for passes in zip(*disjoint.whole, strict=True)], None]
        names = ["disjoint ones of the longest context length", "disjoint ones of every context length", "none"]
        record["sampled"] = {}
        needed = windows_for_precision(arguments.losses, later)
        for name, beside, drawn in zip(names, seconds, needed, strict=True):
            share = min(1.0, (drawn + PILOT_WINDOWS) / later)
            sampled = [
                sum(shape.windows * shape.engine[r] * (share if shape.later else 1) for shape in shapes)
                + (beside[r] + disjoint.pilot[r] if beside else 0.0)
                for r in repetitions
            ]
            faster = [slow / fast for slow, fast in zip(plain, sampled, strict=True)]
            label = f"lit_pi, {drawn:,} of {later:,} windows for ±{PRECISION:.1%}, beside them {name}, and the pilot"
            rows.append((label, sampled, faster))
            record["sampled"][name] = {"windows_drawn": drawn, "of": later, "seconds": sampled, "ratios": faster}
        record |= {"disjoint_seconds": disjoint.whole, "disjoint_seconds_of_the_pilot": disjoint.pilot}
    table = [
        f"{record['device']}, torch {record['torch']}, {record['threads']} threads; size {arguments.size} in "
        f"{arguments.dtype}; {arguments.documents} documents of {arguments.document_tokens:,} tokens; context lengths "
        f"{', '.join(f'{length:,}' for length in plan.context_lengths)}; stride {plan.stride}; "
        f"{arguments.windows} windows of each shape timed, extrapolated to {windows:,} (plain loop: "
        f"{record['windows_of_the_plain_loop']:,}); mean losses differ by at most "
        f"{max(map(abs, differences.values())):.1e} nats.\n",
        "| | seconds, median (min to max) | times as fast, median (min to max) |", "| :--- | ---: | ---: |",
        *(
            f"| {label} | {statistics.median(seconds):,.0f} ({min(seconds):,.0f} to {max(seconds):,.0f}) "
            f"| {statistics.median(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f}) |"
            for label, seconds, ratio in rows
        ),
        f"\nOne pass takes {measured:.3f} of the time of a pass for each context length; by the count of operations "
        f"{predicted:.3f}, of which it is {measured / predicted:.2f} times.",
    ]  # fmt: skip
    print("\n".join(table))
    if arguments.output:
        arguments.output.with_suffix(".json").write_text(json.dumps(record, indent=1))
        arguments.output.with_suffix(".md").write_text("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
