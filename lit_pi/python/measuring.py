"""Evaluations of a model in memory, by the same loops as `lit-pi test`."""

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.connectors.accelerator_connector import _PRECISION_INPUT_STR
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lit_pi.callbacks import Measurements, RopeGuard, StockEquality
from lit_pi.data.corpora.corpus import Corpus, Split
from lit_pi.data.corpora.texts import Texts
from lit_pi.data.model_tokenizer import check_belongs
from lit_pi.data.tokenizer import check_tokenizer
from lit_pi.datamodules import LongContextData
from lit_pi.errors import UserError
from lit_pi.evaluations import Evaluation, PasskeyRetrieval, Perplexity
from lit_pi.evaluations.passkey.passkey import PasskeyMode, Score
from lit_pi.evaluations.perplexity.protocols import ProtocolName
from lit_pi.evaluations.perplexity.windows import Bos
from lit_pi.evaluations.records import load_records
from lit_pi.models.sources.in_memory import InMemory
from lit_pi.module import LitLlama
from lit_pi.positions import PositionStrategy
from lit_pi.python.results import PasskeyResult, PerplexityResult, Result

PRECISIONS: dict[torch.dtype, _PRECISION_INPUT_STR] = {
    torch.float32: "32-true",
    torch.bfloat16: "bf16-true",
    torch.float16: "16-true",
    torch.float64: "64-true",
}
"""Lightning's names of dtypes."""

NOISE = ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
"""Loggers that advertise and tell what a notebook did not ask."""


def perplexity_curve(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str] | str | Corpus,
    context_lengths: Sequence[int] = (2048,),
    stride: int | None = None,
    *,
    position: PositionStrategy | None = None,
    split: Split = "test",
    bos: Bos | None = None,
    disjoint: bool = False,
    batch_size: int = 1,
    max_documents: int | None = None,
    max_tokens: int | None = None,
    min_tokens: int = 1,
    num_windows: int | None = None,
    precision: float | None = None,
    seed: int = 0,
    protocol: ProtocolName | None = None,
) -> PerplexityResult:
    """Sliding-window perplexity against context length, as `lit-pi test` with a `Perplexity` evaluation measures it.

    The model is used where it is, in the dtype it has, and stays as it is.

    Args:
        model: a causal language model of transformers, extended or not.
        tokenizer: its tokenizer.
        texts: documents to measure: strings, or a corpus (`lit_pi.data.corpora`).
        context_lengths: positions of a window (tokens); all are measured in one run.
        stride: tokens from one window to the next; by default the protocol's, else 256.
        position: measure with this strategy; by default with what the model was extended with, or its config says.
        split: which documents of the corpus to measure.
        bos: whether `<bos>` stands before `every` window, each document's `first` one, or `none`; by default what the
            protocol has, else `every`.
        disjoint: score windows that do not overlap too.
        batch_size: windows of one forward.
        max_documents: how many documents to measure, a random choice; None for all.
        max_tokens: tokens of a document that are measured, from its start; None for all.
        min_tokens: documents with fewer tokens are left out.
        num_windows: how many windows to draw beside each document's first one; None for all.
        precision: draw as many windows as give an interval so narrow, as half its width over the perplexity.
        seed: chooses the documents and the windows.
        protocol: measure as numbers of the literature were, by name (see `Perplexity`).

    Raises:
        UserError: no document fills a window of the longest context length, or an option is out of its range.
    """
    corpus = texts if isinstance(texts, Corpus) else Texts([texts] if isinstance(texts, str) else texts)
    evaluation = Perplexity(
        corpus, split, context_lengths, stride, bos, disjoint, batch_size, max_documents, max_tokens, min_tokens,
        num_windows, precision, seed, protocol,
    )  # fmt: skip
    return PerplexityResult(_record(model, tokenizer, corpus.name, evaluation, position))


def passkey(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    context_lengths: Sequence[int] = (2048,),
    mode: PasskeyMode = "paper",
    *,
    position: PositionStrategy | None = None,
    distances: int = 32,
    depths: int = 11,
    trials: int = 10,
    score: Score = "teacher_forced",
    max_new_tokens: int | None = None,
    filler: Corpus | Sequence[str] | None = None,
    batch_size: int = 1,
    seed: int = 0,
) -> PasskeyResult:
    """Which digits hidden in a long text the model finds, as `lit-pi test` with `PasskeyRetrieval` measures it.

    Args:
        model: a causal language model of transformers, extended or not.
        tokenizer: its tokenizer.
        context_lengths: tokens of `<bos>`, prompt and answer; all are measured in one run.
        mode: `paper` puts the key at distances from the prompt's end, `grid` at depths, `random` draws the depth.
        position: measure with this strategy; by default with what the model was extended with, or its config says.
        distances: how many, in mode `paper`.
        depths: how many, in mode `grid`.
        trials: prompts for each distance or depth; in mode `random`, for each context length.
        score: `teacher_forced` asks in one forward; `generate` writes an answer token by token.
        max_new_tokens: tokens of a written answer, at most; as many as an answer has by default.
        filler: text to hide keys in: strings, or a corpus; by default a repeated sentence.
        batch_size: prompts of one forward.
        seed: chooses keys, drawn depths and stretches of filler.

    Raises:
        UserError: a context length has no room for the prompt, or an option is out of its range.
    """
    text = filler if isinstance(filler, Corpus) or filler is None else Texts(filler)
    evaluation = PasskeyRetrieval(
        context_lengths, mode, distances, depths, trials, score, max_new_tokens, text, batch_size=batch_size, seed=seed
    )
    return PasskeyResult(_record(model, tokenizer, "passkey", evaluation, position))


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    evaluation: Evaluation,
    *,
    name: str = "evaluation",
    position: PositionStrategy | None = None,
) -> Result:
    """Measure any evaluation, as `lit-pi test` does.

    Args:
        model: a causal language model of transformers, extended or not.
        tokenizer: its tokenizer.
        evaluation: what to measure, for example `lit_pi.MultipleChoice(...)`.
        name: what to call the evaluation in the result.
        position: measure with this strategy; by default with what the model was extended with, or its config says.

    Raises:
        UserError: the evaluation cannot be measured.
    """
    return Result(_record(model, tokenizer, name, evaluation, position))


def _record(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    name: str,
    evaluation: Evaluation,
    position: PositionStrategy | None,
) -> dict[str, Any]:
    """The record that a test of the model writes into `results.json`."""
    check_tokenizer(tokenizer)
    source = InMemory(model)
    if (known := source.tokenizer()) is not None:
        check_belongs(tokenizer, known)
    if model.dtype not in PRECISIONS:
        raise UserError(f"the model's weights are {model.dtype}: measure it in float32 or bfloat16")
    data = LongContextData(evaluations={name: evaluation})
    data.tokenizer = tokenizer
    module = LitLlama(source, position or source.position)
    on_gpu = source.device.type == "cuda"
    with tempfile.TemporaryDirectory() as run, _quietly():
        trainer = Trainer(
            accelerator=source.device.type,
            devices=[source.device.index or 0] if on_gpu else 1,
            precision=PRECISIONS[model.dtype],
            callbacks=[RopeGuard(), StockEquality(), Measurements(show=False), _LetGo()],
            default_root_dir=run,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.test(module, data, verbose=False)
        (record,) = load_records(Path(run))
    return record


class _LetGo(Callback):
    """Forgets the model before Lightning moves it to the CPU: its weights belong to somebody else."""

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        pl_module.model = None  # type: ignore[assignment]


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what a command tells a terminal, and with torch's random numbers as they were."""
    levels = {name: logging.getLogger(name).level for name in NOISE}
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        for message in (".*does not have many workers", "GPU available but not used", ".*LeafSpec"):
            warnings.filterwarnings("ignore", message=message)
        try:
            for name in NOISE:
                logging.getLogger(name).setLevel(logging.WARNING)
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
