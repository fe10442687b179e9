"""What is predicted of a step is what a step needs."""

import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from rich.console import Console
from strategies import STRATEGIES
from torch import distributed
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig

from lit_pi.cli import LitPiCLI
from lit_pi.datamodules import LongContextData
from lit_pi.errors import UserError
from lit_pi.models import FromScratch, LoRA, Pretrained
from lit_pi.models.layers import linear_cross_entropy
from lit_pi.models.training.activation_budget import RESERVE
from lit_pi.models.training.activation_checkpointing import ActivationCheckpointing
from lit_pi.module import LitLlama
from lit_pi.parallel import FSDP2
from lit_pi.planning.host import PinnedMemory
from lit_pi.planning.ledger import Ledger, Part, Work
from lit_pi.planning.measure import StepMeter
from lit_pi.planning.plan import Memory, Plan, search, settle
from lit_pi.planning.tracer import Trace, Tracer
from lit_pi.planning.trainer import GIB, table
from lit_pi.positions import Extrapolate, PositionStrategy

pytestmark = pytest.mark.filterwarnings("ignore")

HIDDEN, WIDE, LAYERS, VOCABULARY, TOKENS = 128, 256, 3, 300, 256
LONG, HEADS = 4096, 2
LAYER = 4 * HIDDEN**2 + 3 * HIDDEN * WIDE
PARAMETERS = LAYERS * (LAYER + 2 * HIDDEN) + 2 * VOCABULARY * HIDDEN + HIDDEN


class Bytewise(torch.optim.SGD):
    """A state of one byte a weight."""

    def step(self, closure: None = None) -> None:
        super().step(closure)
        for weight in self.param_groups[0]["params"]:
            if not self.state[weight]:
                self.state[weight]["byte"] = torch.zeros_like(weight, dtype=torch.uint8)


def tracer(
    position: PositionStrategy | None = None,
    checkpointing: str = "none",
    offload: bool = False,
    packing: str = "concatenated",
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
    compile_layers: bool | None = None,
    **trainer: object,
) -> Tracer:
    config = {
        "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": WIDE, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "max_position_embeddings": 64,
    }  # fmt: skip
    module = LitLlama(
        FromScratch(config=config),
        position or Extrapolate(),
        optimizer=optimizer,
        activation_checkpointing=ActivationCheckpointing(checkpointing, offload=offload),
        compile_layers=compile_layers,
    )
    options = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False} | trainer
    return Tracer(Trainer(**options), module, LongContextData(packing=packing))


@pytest.mark.parametrize("chunks", [1, 2])
def test_states_and_products_are_what_they_are_by_hand(chunks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_cross_entropy, "LOGITS", TOKENS * VOCABULARY // chunks)
    trace = tracer().step(TOKENS)
    assert trace.peak[Part.WEIGHTS] == 4 * PARAMETERS
    moments = 2 * trace.peak[Part.WEIGHTS]
    assert moments <= trace.peak[Part.OPTIMIZER] < moments + 1000
    # Backward twice the forward; logits of several chunks are computed again there.
    products = 3 * 2 * TOKENS * (LAYERS * LAYER + VOCABULARY * HIDDEN) + (chunks - 1) * 2 * TOKENS * VOCABULARY * HIDDEN
    assert trace.work[Work.PRODUCTS] == products
    # Dao 2023 (FlashAttention-2), section 4.1: 4 T^2 d a head forward, 2.5 times that backward, half of it causal.
    assert trace.work[Work.ATTENTION] == pytest.approx(LAYERS * 3.5 * 4 * TOKENS**2 * HIDDEN / 2)


def test_accumulated_gradients_stay() -> None:
    one, several = (tracer(accumulate_grad_batches=number).step(TOKENS) for number in (1, 2))
    assert several.peak[Part.GRADIENTS] == pytest.approx(one.peak[Part.GRADIENTS] + 4 * PARAMETERS, rel=0.2)


def test_checkpointing_and_documents_are_seen() -> None:
    full, kept, everything, masked = (
        tracer(checkpointing=mode, packing=packing).step(LONG).bytes
        for mode, packing in (
            ("full", "concatenated"), ("attention_saved", "concatenated"), ("none", "concatenated"), ("none", "packed"),
        )
    )  # fmt: skip
    assert full < kept < everything < masked
    # Outputs and a logarithm a query and head; the layer that runs again at the peak has its own either way.
    assert kept - full == (LAYERS - 1) * LONG * (HIDDEN + HEADS) * 4


def test_what_waits_in_pinned_memory_is_the_hosts() -> None:
    kept, offloaded = (tracer(checkpointing="full", offload=waits) for waits in (False, True))
    for layer in offloaded.model.layer_forwards:
        layer.pin = True  # as beside a GPU
    expected = kept.step(LONG).peak[Part.ACTIVATIONS] - LAYERS * LONG * HIDDEN * 4
    found = offloaded.step(LONG)
    assert found.peak[Part.ACTIVATIONS] == pytest.approx(expected, rel=0.05)
    assert found.host == LAYERS * LONG * HIDDEN * 4  # a power of two


def test_offloaded_states_are_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's allocator gives powers of two, for each weight and for its gradient."""
    monkeypatch.setattr(FSDP2, "root_device", torch.device("cuda"))
    for fused in (True, False):
        optimizer = partial(torch.optim.AdamW, fused=fused)
        prepared = tracer(
            checkpointing="full", strategy=FSDP2(cpu_offload=True), precision="32-true", optimizer=optimizer
        )
        blocks = sum(2 ** math.ceil(math.log2(4 * each.numel())) for each in prepared.model.parameters())
        found = prepared.step(TOKENS)
        copies = 0 if fused else 2 * 4 * VOCABULARY * HIDDEN
        assert found.host == pytest.approx(2 * blocks + 8 * PARAMETERS + copies, rel=0.001)
    assert not any(found.peak[part] for part in (Part.WEIGHTS, Part.GRADIENTS, Part.OPTIMIZER))
    assert prepared.step(LONG).host == found.host  # activations stay on the GPU


def test_a_freed_pinned_block_serves_its_own_size_only() -> None:
    memory = PinnedMemory()
    for size, held in ((900, 1024), (1024, 1024), (1025, 3072), (3, 3076)):
        memory.give_back(memory.take(size))
        assert memory.bytes == held
    memory.take(600)
    memory.take(600)
    assert memory.bytes == 3076 + 1024


def test_optimizer_states_follow_the_master_weights_only_if_they_do() -> None:
    """Compute in bfloat16, master weights in float32: states of a dtype of their own do not double with them."""
    found = tracer(strategy=FSDP2(), optimizer=Bytewise).step(TOKENS).peak
    assert found[Part.OPTIMIZER] == pytest.approx(PARAMETERS, rel=0.001)


def test_shards_and_precision_divide_states() -> None:
    assert tracer(precision="bf16-true").step(TOKENS).peak[Part.WEIGHTS] == 2 * PARAMETERS
    for world in (1, 4):
        # Without `Trainer.fit` no process is started.
        found = tracer(strategy=FSDP2(), devices=world).step(TOKENS).peak
        assert found[Part.WEIGHTS] == 4 * PARAMETERS / world
        assert found[Part.OPTIMIZER] == pytest.approx(8 * PARAMETERS / world, rel=0.01)


def split(size: int) -> Trace:
    return tracer(strategy=FSDP2(context_parallel_size=size), devices=4, compile_layers=False).step(LONG)


def test_split_sequences_divide_activations_and_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """On GPUs, where keys and values pass by."""
    monkeypatch.setattr(FSDP2, "root_device", torch.device("cuda"))
    whole, part = split(1), split(4)
    assert part.peak[Part.ACTIVATIONS] == pytest.approx(whole.peak[Part.ACTIVATIONS] / 4, rel=0.05)
    assert part.work[Work.ATTENTION] == pytest.approx(whole.work[Work.ATTENTION] / 4)
    # Keys and values of all ranks in a layer, and their gradients.
    assert part.peak[Part.WORKSPACE] > whole.peak[Part.WORKSPACE] / 4 + 2 * LONG * HIDDEN * 2


def test_ranks_without_a_ring_keep_keys_of_all_and_a_mask_in_every_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CPUs, in bfloat16 after FSDP2's default."""
    whole, part = split(1), split(4)
    keys_of_others = 2 * LONG * HIDDEN * 2 * 3 / 4
    mask = LONG / 4 * LONG * 2
    expected = whole.peak[Part.ACTIVATIONS] / 4 + LAYERS * (keys_of_others + mask)
    assert part.peak[Part.ACTIVATIONS] == pytest.approx(expected, rel=0.15)
    assert part.work[Work.ATTENTION] == pytest.approx(whole.work[Work.ATTENTION] / 4)
    assert not distributed.is_initialized()
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    with pytest.raises(UserError, match="plan it in a fresh one"):
        split(4)


def test_an_adapter_trains_little_and_tied_weights_count_once(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=WIDE, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    module = LitLlama(
        Pretrained(str(tmp_path)), Extrapolate(), adapter=LoRA(4, train_embeddings=False, train_norms=False)
    )
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    peak = Tracer(trainer, module, LongContextData(packing="concatenated")).step(TOKENS).peak
    adapters = LAYERS * 4 * 2 * 4 * HIDDEN
    assert peak[Part.WEIGHTS] == 4 * (PARAMETERS - VOCABULARY * HIDDEN + adapters)
    assert peak[Part.OPTIMIZER] == pytest.approx(2 * 4 * adapters, rel=0.01)


@pytest.mark.parametrize("name", ["interpolate", "dynamic-ntk", "self-extend"])
def test_every_kind_of_strategy_is_traced_and_leaves_nothing(name: str) -> None:
    prepared = tracer(STRATEGIES[name])
    first = prepared.step(64)
    assert prepared.step(64).peak == first.peak


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("start", [64, 4096, 2**20])
@pytest.mark.parametrize("scarce", ["device", "host"])
def test_the_longest_context_nearly_fills_the_memory(scarce: str, power: int, start: int) -> None:
    def step(length: int) -> Trace:
        return Trace(length, {Part.ACTIVATIONS: 1000 + length**power}, Counter(), 50 + length)

    memory = Memory(1000 + 10_000**power, math.inf) if scarce == "device" else Memory(math.inf, 50 + 10_000)
    lengths = [each.context_length for each in search(SimpleNamespace(step=step), step(start), memory)]
    longest = max(length for length in [start, *lengths] if memory.filled(step(length)) <= 1)
    assert 0.97 * 10_000 < longest <= 10_000
    assert not list(search(SimpleNamespace(step=step), step(start), Memory(1000, 1e9)))[-1].context_length > start


def test_the_cpus_memory_is_shown_beside_a_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    meter = StepMeter()
    meter.bytes, meter.host, meter.seconds = 4 * GIB, 10 * GIB, 2.0
    for host, shown in ((12.0 * GIB, r"the CPU's, of 100.0 GiB.* 12.00 GiB .* 10.00 GiB .*\+20%"), (0.0, None)):
        plan = Plan(64, 64, {Part.WEIGHTS: 4.0 * GIB}, host, 1.0, Memory(80 * GIB, 100 * GIB), 64)
        Console(width=100).print(table(plan, meter))
        said = capsys.readouterr().out
        assert re.search(r"memory at the peak.* 4.00 GiB .* 4.00 GiB .*\+0%", said)
        assert re.search(shown, said) if shown else "the CPU's" not in said


@pytest.mark.long
def test_prediction_is_within_15_percent_of_what_is_measured(tmp_path: Path, tiny: list[str]) -> None:
    words = [
        *tiny, "--model.llm.config.hidden_size=384", "--model.llm.config.intermediate_size=1024",
        "--data.context_length=1024", "--data.packing=concatenated", "--trainer.limit_val_batches=0", "--verify",
        "--model.activation_checkpointing.mode=attention_saved", "--memory_gib=1",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "lit_pi", "plan", *words], check=True, capture_output=True, timeout=200, cwd=tmp_path,
        text=True,
    )  # fmt: skip
    (difference,) = re.findall(r"memory at the peak.*?([+-]\d+)%", done.stdout)
    assert abs(int(difference)) <= 15
    (longest,) = re.findall(r"longest context in 1\.0 GiB │ *([\d,]+) tokens", done.stdout)
    assert int(longest.replace(",", "")) > 1024
    assert not any(tmp_path.iterdir())


def test_memory_that_is_none_is_refused(tiny: list[str]) -> None:
    for option in ("memory_gib", "host_memory_gib"):
        with pytest.raises(Exception, match=f"^{option} is 0: it must be positive"):
            LitPiCLI(["plan", *tiny, f"--{option}=0"])


def test_attentions_backward_has_room_of_its_own_beside_what_is_held_then() -> None:
    def peak(attention: int, later: int) -> float:
        with FakeTensorMode(), Ledger(VOCABULARY, {}, {}, attention) as ledger:
            states = torch.empty(1, HEADS, TOKENS, HIDDEN, requires_grad=True)
            scaled_dot_product_attention(states, states, states, is_causal=True).sum().backward()
            torch.empty(later, dtype=torch.uint8)
        return sum(ledger.peak.values())

    assert peak(10**9, 1) - peak(0, 1) == 10**9
    assert peak(10**9, 10**10) == peak(0, 10**10)


def test_gradients_stand_whole_until_they_are_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the embedding and output layers when the backward pass ends, of a decoder layer before."""
    for vocabulary in (3000, 30):
        monkeypatch.setattr(sys.modules[__name__], "VOCABULARY", vocabulary)
        peak = tracer(strategy=FSDP2(), optimizer=torch.optim.SGD).step(8).peak
        root, layer = (2 * vocabulary + 1) * HIDDEN, LAYER + 2 * HIDDEN
        gathered = (root + 2 * layer) * 2
        if vocabulary == 3000:
            assert peak[Part.WORKSPACE] == gathered + root * (2 + 4)
            assert peak[Part.GRADIENTS] == 4 * (root + LAYERS * layer)
        else:
            waiting = (vocabulary + 1) * HIDDEN * 2
            assert peak[Part.WORKSPACE] == pytest.approx(gathered + waiting + layer * (2 + 4), rel=0.05)


def test_copies_of_weights_end_with_a_compiled_layer() -> None:
    """Autocast keeps those of others until the forward pass is over; gradients of the batch before stand beside."""
    compiled, others = (
        tracer(
            checkpointing="full", optimizer=torch.optim.SGD, compile_layers=compiles, precision="bf16-mixed",
            accumulate_grad_batches=2,
        ).step(8).bytes
        for compiles in (True, False)
    )  # fmt: skip
    assert LAYERS * LAYER < others - compiled <= 2 * LAYERS * LAYER


@pytest.fixture(scope="module")
def climbing() -> Iterator[tuple[Tracer, Trace, float, float]]:
    """A step whose layers may climb, as if on a GPU, and bytes of one whose layers keep least, and everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FSDP2, "root_device", torch.device("cuda"))
        low, high = (tracer(checkpointing=mode, strategy=FSDP2()).step(LONG).bytes for mode in ("full", "none"))
        prepared = tracer(checkpointing="auto", strategy=FSDP2())
        yield prepared, prepared.step(LONG), low, high


@pytest.mark.parametrize("share", [0.5, 0.9, 3.0])
def test_layers_climb_to_what_the_memory_holds(
    share: float, climbing: tuple[Tracer, Trace, float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FSDP2, "root_device", torch.device("cuda"))
    prepared, first, low, high = climbing
    assert first.bytes == low
    prepared.set_modes(["full"] * LAYERS)
    memory = Memory((low + share * (high - low)) / (1 - RESERVE), math.inf)
    found = settle(prepared, first, memory, None)
    modes = {layer.mode for layer in prepared.model.layer_forwards}
    assert found.bytes <= low + share * (high - low) or modes == {"none"}
    assert found.bytes == (pytest.approx(low + share * (high - low), rel=0.1) if share < 1 else high)
    prepared.set_modes(["full"] * LAYERS)
    assert settle(prepared, first, memory, low / GIB).bytes == low
