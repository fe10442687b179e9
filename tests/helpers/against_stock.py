"""A causal language model in lit_pi's hands against stock transformers: scoring, learning, packing, decoding."""

import copy
import functools
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from architectures import Case, stock_model
from lightning.pytorch import Trainer
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from lit_pi.batches import Decoding, GenerationBatch
from lit_pi.callbacks import RopeGuard
from lit_pi.errors import UserError
from lit_pi.models import LanguageModel
from lit_pi.models.decoding.decode_consistency import score_both_ways
from lit_pi.models.decoding.generation import generate
from lit_pi.models.sources.in_memory import InMemory
from lit_pi.models.training.activation_checkpointing import ActivationCheckpointing
from lit_pi.module import LitLlama
from lit_pi.positions import FromConfig

LENGTHS = (16, 17, 64, 100)
"""Tokens of scored rows: up to and beyond windows and original contexts of 16, and the context of 64."""

DOCUMENTS = (5, 37, 1, 90)
"""Tokens of the documents that share a row, which is long enough for blocks of FlexAttention on GPUs."""

PROMPTS, NEW, CONTEXT = (45, 5, 24), 12, 60
"""Tokens of prompts of one batch, tokens that follow each, and what their positions stand for."""

TOLERANCE = 1e-4
"""Nats a token; and a share of the gradient's largest entry."""

MAGNIFIES = {"diffllama"}
"""Kinds whose gradients magnify how a processor rounds float32: they are compared in float64."""


class Found(NamedTuple):
    """What became of a model.

    Attributes:
        outcome: `exact`, `refused` by a `UserError`, `wrong`, or `traceback` of any other error.
        largest: the largest difference of each task that was done (nats a token, or share of a gradient).
        reason: why it is not exact.
    """

    outcome: str
    largest: dict[str, float]
    reason: str = ""


def compare(case: Case, tasks: Sequence[str] | None = None, device: str = "cpu") -> Found:
    """What lit_pi does with a model, against stock transformers.

    Args:
        case: the model's config.
        tasks: some of `TASKS`; all of them by default.
        device: where both compute.
    """
    stock = stock_model(case.config()).to(device)
    largest: dict[str, float] = {}
    doing = "loading"
    try:
        adapted = loaded(stock)
        for name in TASKS if tasks is None else tasks:
            doing = name
            largest[name] = TASKS[name](stock, adapted)
    except UserError as error:
        late = "" if doing == "loading" else f"{doing}: "
        return Found("refused", largest, late + str(error).splitlines()[0])
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        said = next(iter(str(error).splitlines()), "")
        return Found("traceback", largest, f"{doing}: {type(error).__name__}: {said} ({place})")
    wrong = {name: f"{value:.1e}" for name, value in largest.items() if not value <= TOLERANCE}
    return Found("wrong" if wrong else "exact", largest, ", ".join(f"{name} {value}" for name, value in wrong.items()))


def loaded(stock: PreTrainedModel) -> LanguageModel:
    """The model as a run has it, past every check before the first step; compiling it would only take time."""
    trainer, module = _trainer(stock.device.type), LitLlama(InMemory(stock), FromConfig(), compile_layers=False)
    trainer.strategy.connect(module)
    module.trainer = trainer
    module.configure_model()
    assert module.model is not None
    RopeGuard().check(trainer, module)
    return module.model.eval()


@functools.cache
def _trainer(device: str) -> Trainer:
    return Trainer(
        accelerator=device, devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip


def tokens(stock: PreTrainedModel, *shape: int) -> Tensor:
    """Random tokens where a model is, the same for a shape."""
    return torch.randint(3, 264, shape, generator=torch.Generator().manual_seed(sum(shape))).to(stock.device)


def follows_length(config: PreTrainedConfig) -> bool:
    """Whether the angles of a row depend on how long it is."""
    said = getattr(config, "rope_parameters", None) or {}
    each = [said, *(value for value in said.values() if isinstance(value, dict))]
    return any(parameters.get("rope_type") in ("dynamic", "longrope") for parameters in each)


def stock_logits(stock: PreTrainedModel, ids: Tensor, context: int | None = None) -> Tensor:
    """Stock logits of a row alone, without a cache.

    Args:
        stock: the model; its rotary embedding may keep frequencies of the row before, so a copy runs.
        ids: `[rows, tokens]`.
        context: tokens that the positions stand for, where angles depend on it: what follows the row is not seen.
    """
    row = ids
    if context is not None and follows_length(stock.config):
        row = torch.cat((ids, tokens(stock, len(ids), context - ids.shape[1])), dim=1)
    return _unused(stock)(input_ids=row, use_cache=False).logits[:, : ids.shape[1]]


def _unused(stock: PreTrainedModel) -> PreTrainedModel:
    if not follows_length(stock.config):
        return stock
    own = {id(each): each for each in stock.parameters()}
    return copy.deepcopy(stock, own)


def stock_nll(stock: PreTrainedModel, ids: Tensor, targets: Tensor, context: int | None = None) -> Tensor:
    """Stock negative log-likelihoods of targets."""
    logits = stock_logits(stock, ids, context)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(wide.mT, targets, reduction="none")


@torch.no_grad()
def scoring(stock: PreTrainedModel, adapted: LanguageModel) -> float:
    """Every length, and some positions of the longest."""
    largest = 0.0
    for length in LENGTHS:
        row = tokens(stock, 1, length + 1)
        ids, targets = row[:, :-1], row[:, 1:]
        expected = stock_nll(stock, ids, targets)
        largest = max(largest, float((adapted(ids, targets) - expected).abs().max()))
    scored = torch.arange(3, length, 4, device=row.device)
    some = adapted(ids, targets[:, scored], scored=scored)
    return max(largest, float((some - expected[:, scored]).abs().max()))


def learning(stock: PreTrainedModel, adapted: LanguageModel) -> float:
    """Loss and gradients of a row without documents."""
    row = tokens(stock, 2, 41)
    ids, targets = row[:, :-1], row[:, 1:]
    models = (stock, adapted) if stock.config.model_type in MAGNIFIES else ()
    for model in models:
        model.double()
    found = _learnt(stock, adapted, lambda: stock_nll(stock, ids, targets), lambda: adapted(ids, targets))
    for model in models:
        model.float()
    return found


def packed(stock: PreTrainedModel, adapted: LanguageModel) -> float:
    """Losses and gradients of documents that share a row, under checkpointing, against each alone."""
    context = sum(DOCUMENTS)
    row = tokens(stock, 2, context + 1)
    ids, targets = row[:, :-1], row[:, 1:]
    places = {
        "position_ids": torch.cat([torch.arange(length, device=row.device) for length in DOCUMENTS])[None],
        "document_ids": torch.repeat_interleave(torch.tensor(DOCUMENTS, device=row.device))[None].expand(2, -1),
    }

    def alone() -> Tensor:
        parts = zip(ids.split(DOCUMENTS, 1), targets.split(DOCUMENTS, 1), strict=True)
        return torch.cat([stock_nll(stock, *part, context) for part in parts], dim=1)

    ActivationCheckpointing("full").install(adapted, on_gpu=False)
    try:
        return _learnt(stock, adapted, alone, lambda: adapted(ids, targets, **places))
    finally:
        ActivationCheckpointing("none").install(adapted, on_gpu=False)


def _learnt(
    stock: PreTrainedModel, adapted: LanguageModel, expected: Callable[[], Tensor], found: Callable[[], Tensor]
) -> float:
    """The largest difference of losses, and of gradients over their largest entry."""
    own = dict(adapted.llm.named_parameters())
    for parameter in own.values():
        parameter.requires_grad_(True)
    if stock.config.model_type != "phimoe":  # whose experts are drawn in training
        stock.train()
        adapted.train()
    (nll := expected()).mean().backward()
    (own_nll := found()).mean().backward()
    largest = float((own_nll - nll).detach().abs().max())
    theirs = {name: each.grad for name, each in stock.named_parameters() if each.grad is not None}
    scale = max(float(gradient.abs().max()) for gradient in theirs.values())
    for name, gradient in theirs.items():
        mine = own[name].grad
        off = gradient if mine is None else mine - gradient
        largest = max(largest, float(off.abs().max()) / max(float(gradient.abs().max()), 1e-3 * scale))
    for model in (stock, adapted):
        model.zero_grad()
        model.eval()
    return largest


@torch.no_grad()
def decoding(stock: PreTrainedModel, adapted: LanguageModel) -> float:
    """Tokens after right-padded prompts of unequal lengths, one by one with a cache, against whole rows."""
    prompts, targets = [tokens(stock, length) for length in PROMPTS], tokens(stock, len(PROMPTS), NEW)
    lengths = torch.tensor(PROMPTS, device=targets.device)
    batch = GenerationBatch(
        evaluation="texts",
        input_ids=torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True, padding_value=1),
        lengths=lengths,
        context_lengths=torch.full_like(lengths, CONTEXT),
        documents=torch.arange(len(PROMPTS), device=targets.device),
        decoding=Decoding(NEW),
        targets=targets,
    )
    both = score_both_ways(adapted, batch)
    largest = 0.0
    for row, prompt in enumerate(prompts):
        ids = torch.cat((prompt, targets[row]))[None]
        expected = stock_nll(stock, ids[:, :-1], ids[:, 1:], CONTEXT)[0, len(prompt) - 1 :]
        for found in both:
            largest = max(largest, float((found[row] - expected).abs().max()))
    texts = generate(adapted, batch._replace(targets=None)).token_ids
    for row, prompt in enumerate(prompts):
        ids = torch.cat((prompt, texts[row]))[None]
        logits = stock_logits(stock, ids, CONTEXT)[0, len(prompt) - 1 : -1]
        chosen = logits.gather(1, texts[row][:, None])[:, 0]
        largest = max(largest, float((logits.amax(dim=1) - chosen).max()))  # ties may fall either way
    return largest


TASKS: dict[str, Callable[[PreTrainedModel, LanguageModel], float]] = {
    "scoring": scoring,
    "learning": learning,
    "packed": packed,
    "decoding": decoding,
}
