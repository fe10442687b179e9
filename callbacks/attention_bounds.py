"""Bounds on how far attention scores stray from what pre-training has seen, in the loaded model."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lit_pi import theory
from lit_pi.batches import ScoringBatch
from lit_pi.errors import UserError
from lit_pi.evaluations.records import add_record
from lit_pi.models.attention.rules import rule_scores, unlike_llama
from lit_pi.models.layers.queries_and_keys import watched
from lit_pi.module import LitLlama


class LayerBounds(NamedTuple):
    """Errors and scores of one layer's sampled queries and keys; scores as they enter the softmax.

    Attributes:
        interpolation_error: largest |a(s) - a_lin(s)| at half-integer distances within the original context.
        interpolation_bound: the bound on it, at the pair and distance where it is largest.
        largest_share: the largest quotient of an error and its own bound, at most 1.
        score_within: largest absolute score at distances within the original context.
        score_beyond: largest absolute score at distances beyond it; 0 where the window has none.
    """

    interpolation_error: float
    interpolation_bound: float
    largest_share: float
    score_within: float
    score_beyond: float


class AttentionBounds(Callback):
    """Measures the first window of a test against the bounds of `lit_pi.theory` (Chen et al. 2023, section 2.3).

    Per layer: the error of interpolating scores between integer distances against its exact bound, and the range of
    scores within and beyond the original context; and the frequencies that leave the angles seen in pre-training.
    They go to a table, to TensorBoard (`attention_bounds/...`, the layer as step) and to `results.json`.

    Args:
        rows: how many queries are sampled in each layer; their scores with all keys are computed, never all queries'.
        pairs: for how many keys of each query the interpolation error is measured.
        seed: chooses the samples.
    """

    def __init__(self, rows: int = 16, pairs: int = 8, seed: int = 0) -> None:
        self.rows = rows
        self.pairs = pairs
        self.seed = seed
        self._layers: dict[int, LayerBounds] = {}
        self._watching = ExitStack()
        self._longest = 0

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make sure that a rank sees whole sequences of a model that scores as LLaMA does.

        Raises:
            UserError: sequences are split over ranks, or the model is another one.
        """
        assert isinstance(pl_module, LitLlama) and pl_module.model is not None
        if pl_module.model.sequence_mesh is not None:
            raise UserError(
                "attention bounds need all queries and keys of a layer at one place, and "
                "trainer.strategy.context_parallel_size splits sequences over ranks: leave it out, or the callback"
            )
        if reason := unlike_llama(pl_module.model.llm, pl_module.model.rotary):
            raise UserError(f"attention bounds are those of LLaMA's attention, and the model {reason}: leave them out")

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: ScoringBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Watch the first batch, which holds the longest windows."""
        if batch_idx == dataloader_idx == 0 and trainer.is_global_zero:
            assert isinstance(pl_module, LitLlama) and pl_module.model is not None
            self._layers, self._longest = {}, 0

            def measure(number: int, queries: Tensor, keys: Tensor) -> None:
                # A strategy whose angles depend on the length runs shorter windows too.
                length = min(queries.shape[1], int(batch.lengths[0]))
                if length >= self._longest:
                    self._longest = length
                    with torch.autocast(queries.device.type, enabled=False):
                        self._layers[number] = self._measure(pl_module, queries[0, :length], keys[0, :length])

            self._watching.enter_context(watched(pl_module.model, measure))

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *arguments: Any) -> None:
        """Stop watching."""
        self._watching.close()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Publish the bounds."""
        if not (self._layers and trainer.is_global_zero):
            return
        assert isinstance(pl_module, LitLlama)
        ((position, rope),) = pl_module.rotations.distinct
        inv_freq = position.inv_freq(rope, self._longest)
        unseen = theory.unseen_frequencies(inv_freq, rope, self._longest).nonzero()[:, 0].tolist()
        layers = [self._layers[number]._asdict() for number in sorted(self._layers)]
        record = {
            "kind": "attention_bounds",
            "evaluation": "attention_bounds",
            "stage": "test",
            "step": trainer.global_step,
            "partial": False,
            "context_length": self._longest,
            "layers": layers,
            "unseen_frequencies": unseen,
            "protocol": {"rows": self.rows, "pairs": self.pairs, "seed": self.seed} | pl_module.describe(),
        }
        add_record(Path(trainer.default_root_dir), record)
        for number, layer in enumerate(layers):
            for logger in trainer.loggers:
                logger.log_metrics({f"attention_bounds/{name}": value for name, value in layer.items()}, number)
        _print(layers, unseen, len(inv_freq), self._longest)

    def _measure(self, module: LitLlama, queries: Tensor, keys: Tensor) -> LayerBounds:
        """One layer's bounds from `queries` and `keys` `[seq, heads, head_dim]`, not yet rotated."""
        generator = torch.Generator().manual_seed(self.seed)
        seq, rope, device = len(queries), module.rope, queries.device
        rows = torch.randperm(seq, generator=generator)[: self.rows].sort().values.to(device)
        keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1).transpose(0, 1).double()
        queries = queries[rows].transpose(0, 1).double()
        scale = rope.head_dim**-0.5

        partners = torch.randint(seq, (self.pairs,), generator=generator).to(device)
        h = theory.coefficients(queries[:, :, None], keys[:, partners][:, None]) * scale
        places = torch.randint(rope.original_context - 1, (32,), generator=generator).to(device) + 0.5
        pre_trained = rope.inv_freq().to(device)
        score = theory.attention_score(h, places, pre_trained)
        error = (score - theory.interpolated_score(h, places, pre_trained)).abs()
        bound = theory.interpolation_bound(h, places, pre_trained)

        positions = torch.arange(seq, device=device)[None]
        assert module.model is not None
        scores = rule_scores(module.model.rotary, queries[None], keys[None], rows[None], positions)[0].abs() * scale
        distance = rows[:, None] - positions
        return LayerBounds(
            interpolation_error=float(error.max()),
            interpolation_bound=float(bound.flatten()[error.argmax()]),
            largest_share=float((error / bound).max()),
            score_within=_largest(scores, (distance >= 0) & (distance < rope.original_context)),
            score_beyond=_largest(scores, distance >= rope.original_context),
        )


def _largest(scores: Tensor, chosen: Tensor) -> float:
    return float(scores.masked_fill(~chosen, 0.0).max())


def _print(layers: list[dict[str, float]], unseen: list[int], frequencies: int, length: int) -> None:
    table = Table(title=f"attention bounds at {length:,} tokens")
    for column in ("layer", "error", "bound", "largest share", "score within", "score beyond"):
        table.add_column(column, justify="right")
    for number, layer in enumerate(layers):
        table.add_row(str(number), *(f"{value:.4g}" for value in layer.values()))
    Console().print("", table, sep="\n")  # below the progress bar
    which = f"{unseen[0]} to {unseen[-1]}" if unseen else "none"
    print(f"Frequencies that leave the angles of pre-training: {len(unseen)} of {frequencies} ({which})")
