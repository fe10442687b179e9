"""Proof that packed documents do not see each other, on the very model that is about to train."""

from contextlib import nullcontext

import torch
from jaxtyping import Bool, Float, Int
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from lit_pi.batches import TrainingBatch
from lit_pi.callbacks.probing import without_trace
from lit_pi.datamodules import LongContextData
from lit_pi.errors import UserError
from lit_pi.models.training.float8 import in_high_precision
from lit_pi.module import LitLlama

PARTS = (3, 5, 2, 3)
"""Relative lengths of a row's documents, the next row's turned by one. Of 13 parts, no edge is one of a kernel's."""

NOISE = 4
"""A score has moved when it differs by more than so many times the difference of two equal runs."""

ISOLATED = {
    "packed": "documents of a sequence do not see each other, nor do sequences of a batch",
    "single": "sequences of a batch, each one document, do not see each other",
    "concatenated": "sequences of a batch do not see each other; the documents of one do, as `data.packing` says",
}
"""The sentence on what has been shown, by packing."""


class IsolationProbe(Callback):
    """Changes one token of one document before the first step, and refuses to train when another document notices.

    The probe is a batch shaped as those of training, several documents a row, through the model as it will train:
    compiled, sharded, adapted; four forwards, the same on every rank. Scores of other documents, of other rows and of
    earlier tokens must stay the same to the bit: kernels compute each row of a matrix product on its own and masked
    pairs have weight zero exactly (it probes without float8, in which all tokens of a tensor share a scale). Where two
    equal runs differ, a kernel has no fixed order of summation, and scores may differ by a few times as much. Later
    tokens of the document must move, and all its scores when its positions are halved, where the strategy has
    positions. Without packed documents (see `data.packing`) it probes what still holds: rows and causality.

    Args:
        seed: chooses the probe's random tokens.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe the model, and refuse to train where it does not isolate documents.

        Raises:
            UserError: a score moved that must not, or one did not that must.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, LongContextData) and isinstance(pl_module, LitLlama) and pl_module.model is not None
        shape, vocab_size = (data.batch_size, data.context_length), pl_module.model.llm.config.vocab_size
        batch, place = probe(*shape, vocab_size, data.packing == "packed", self.seed)
        precise = nullcontext() if pl_module.float8 is None else in_high_precision(pl_module.model)
        with without_trace(pl_module), precise:
            wrong, noise = _run(pl_module, batch, place, vocab_size)
        if not trainer.strategy.reduce_boolean_decision(wrong is None, all=True):
            raise UserError(
                f"isolation probe: {wrong or 'another rank found that tokens see what they must not'}; training has "
                "not started: look at what replaces the model's attention or positions (an adapter, a patch, a compiler"
                "), or set data.packing to `single` and data.batch_size to 1, which need no isolation"
            )
        exactness = f"but for {noise:.1g} nats by which equal runs differ" if noise else "to the bit"
        rank_zero_info(f"Isolation probe: {ISOLATED[data.packing]}, and no token sees a later one, {exactness}.")


def probe(rows: int, seq: int, vocab_size: int, packed: bool, seed: int) -> tuple[TrainingBatch, int]:
    """Random tokens in documents as training sequences hold them, and the place in row 0 to change.

    Args:
        rows: sequences of the batch.
        seq: positions of a sequence, at least 8.
        vocab_size: size of the model's vocabulary.
        packed: put several documents into a row, else one.
        seed: chooses the tokens.
    """
    tokens = torch.randint(vocab_size, (rows, seq + 1), generator=torch.Generator().manual_seed(seed))
    ids, places = torch.zeros(rows, seq, dtype=torch.long), torch.arange(seq).repeat(rows, 1)
    for row in range(rows if packed else 0):
        turn = row % len(PARTS)
        edges = torch.tensor(PARTS[turn:] + PARTS[:turn]).cumsum(0) * seq // sum(PARTS)
        ids[row] = torch.searchsorted(edges, places[row], right=True)
        places[row] -= torch.cat((torch.zeros(1, dtype=torch.long), edges))[ids[row]]
    own = (ids[0] == (1 if packed else 0)).nonzero()[:, 0]
    batch = TrainingBatch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), places, ids if packed else None)
    return batch, int(own[max(len(own) // 4, 1)])


def _run(module: LitLlama, batch: TrainingBatch, place: int, vocab_size: int) -> tuple[str | None, float]:
    """Probe, and tell what is wrong, if anything, and by how much equal runs differ (nats)."""
    trainer = module.trainer
    batch = trainer.strategy.batch_to_device(module.placed(batch), module.device)
    ids = torch.zeros_like(batch.input_ids) if batch.document_ids is None else batch.document_ids
    own = torch.zeros_like(ids, dtype=torch.bool)
    own[0] = ids[0] == ids[0, place]
    tokens = batch.input_ids.clone()
    tokens[0, place] = (tokens[0, place] + 1) % vocab_size
    positions = torch.where(own, batch.position_ids // 2, batch.position_ids)

    def scores(probe: TrainingBatch) -> Float[Tensor, "batch seq"]:
        with trainer.strategy.precision_plugin.train_step_context():
            return module.learn(probe, trainer.strategy.model if isinstance(trainer.strategy, FSDPStrategy) else None)

    first, again = scores(batch), scores(batch)
    noise = (first - again).abs().max()
    by_token, by_position = (
        ((first - scores(changed)).abs() > NOISE * noise).cpu()
        for changed in (batch._replace(input_ids=tokens), batch._replace(position_ids=positions))
    )
    if not first.isfinite().all():
        return "scores of random tokens are not finite", float(noise)
    own, ids = own.cpu(), ids.cpu()
    wrong = _leak(by_token, own, ids) or _leak(by_position, own, ids) or _asleep(by_token, own, place)
    if wrong is None and _positions_matter(module, batch, positions) and not by_position[own].any():
        wrong = "no score notices the positions of its document's tokens, though the strategy gives them angles"
    return wrong, float(noise)


def _leak(
    moved: Bool[Tensor, "batch seq"], own: Bool[Tensor, "batch seq"], ids: Int[Tensor, "batch seq"]
) -> str | None:
    """Who outside the document noticed a change in it."""
    if not (moved & ~own).any():
        return None
    row, token = (moved & ~own).nonzero()[0].tolist()
    where = f"document {int(ids[row, token])}, token {token}," if row == 0 else f"sequence {row}, token {token},"
    document = int(ids[own][0])
    return f"document {document} of sequence 0 of a batch leaked into {where} which must not see it"


def _asleep(moved: Bool[Tensor, "batch seq"], own: Bool[Tensor, "batch seq"], place: int) -> str | None:
    """Tell what is wrong inside the document whose token changed, if anything."""
    moved, own = moved[0], own[0]
    if moved[:place].any():
        return f"token {int(moved.nonzero()[0])} of a sequence saw the later token {place}: attention is not causal"
    if not moved[place + 1 :][own[place + 1 :]].any():
        return f"no later token of its own document saw token {place} of a sequence"
    return None


def _positions_matter(module: LitLlama, batch: TrainingBatch, positions: Int[Tensor, "batch seq"]) -> bool:
    """Whether the angles of a layer differ."""
    length = module.train_positions.context_length(positions.shape[1])
    return not all(
        torch.equal(position.angles(batch.position_ids, rope, length), position.angles(positions, rope, length))
        for position, rope in module.rotations.distinct
    )
