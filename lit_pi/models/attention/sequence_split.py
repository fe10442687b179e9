"""Context parallelism: sequences split over ranks, each of which computes its part of every layer."""

import math
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Shard
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.models.llama.modeling_llama import repeat_kv

from lit_pi.batches import IGNORE

RING_KERNELS = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
"""Kernels whose parts torch's ring attention merges."""

ALIGNMENT = 32
"""Positions of which a chunk has a multiple: the memory-efficient kernel rounds its log-sum-exp up to it."""


class SequenceSplit:
    """The positions of the sequences at hand that this rank computes, and the exchange with the other ranks.

    The sequence is cut into twice as many chunks as ranks, and each rank takes one from the front and its counterpart
    from the back: under causal attention all then compute as much. Padding on the right makes the chunks equal.

    Args:
        mesh: the ranks, in one dimension.
        position_ids: positions of the whole sequences, in tokens.
        scored: positions to score, ascending, or None for all.

    Attributes:
        mesh: the ranks.
        places: index in the padded sequence of each position of this rank, ascending.
        own_scored: those of this rank's positions that are to be scored, or None for all.
        key_position_ids: positions of the whole sequences with padding, in tokens.
    """

    def __init__(
        self, mesh: DeviceMesh, position_ids: Int[Tensor, "rows seq"], scored: Int[Tensor, " scored"] | None = None
    ) -> None:
        self.mesh = mesh
        self._seq, ranks, device = position_ids.shape[1], mesh.size(), position_ids.device
        chunk = self._chunk = math.ceil(self._seq / (2 * ranks * ALIGNMENT)) * ALIGNMENT
        self._padding = 2 * ranks * chunk - self._seq
        chunks = torch.arange(2 * ranks * chunk, device=device).view(2 * ranks, chunk)
        by_rank = torch.stack((chunks[:ranks], chunks[ranks:].flip(0)), dim=1).view(ranks, 2 * chunk)
        self._order = by_rank.flatten().argsort()
        self.places: Int[Tensor, " own"] = by_rank[mesh.get_local_rank()]
        self.key_position_ids: Int[Tensor, "rows keys"] = self.padded(position_ids)
        self._scored = scored
        self.own_scored = None if scored is None else torch.isin(self.places, scored).nonzero()[:, 0]

    def padded(self, whole: Shaped[Tensor, "rows seq"], value: int = 0) -> Shaped[Tensor, "rows keys"]:
        """Whole sequences, as long as all ranks' parts together."""
        return F.pad(whole, (0, self._padding), value=value)

    def own(self, whole: Shaped[Tensor, "rows seq"], value: int = 0) -> Shaped[Tensor, "rows own"]:
        """This rank's part, with `value` where there is padding."""
        return self.padded(whole, value)[:, self.places]

    def seen_by(self, own: int) -> int:
        """Keys that this rank's first `own` positions can see under causal attention."""
        rank = self.mesh.get_local_rank()
        chunks_before = rank if own <= self._chunk else 2 * (self.mesh.size() - 1 - rank) + rank
        return chunks_before * self._chunk + own

    def own_targets(self, targets: Int[Tensor, "rows scored"]) -> Int[Tensor, "rows own_scored"]:
        """Those of this rank's positions that are to be scored."""
        if self._scored is None:
            return self.own(targets, IGNORE)
        spread = targets.new_full((len(targets), self._seq), IGNORE).index_copy(1, self._scored, targets)
        return self.own(spread, IGNORE)[:, self.own_scored]

    def all_scores(self, scores: Shaped[Tensor, "rows own_scored"]) -> Shaped[Tensor, "rows scored"]:
        """Gather what all ranks found at their scored positions, given what this one found."""
        if self.own_scored is None:
            return self.gather(scores, dim=1, places=self._seq)
        spread = scores.new_zeros(len(scores), len(self.places)).index_copy(1, self.own_scored, scores)
        return self.gather(spread, dim=1)[:, self._scored]

    def gather(self, own: Shaped[Tensor, "..."], dim: int, places: int | None = None) -> Shaped[Tensor, "..."]:
        """All ranks' parts in the order of the padded sequence, or its first places; gradients are summed."""
        parts = DTensor.from_local(own, self.mesh, [Shard(dim)], run_check=False)
        return parts.full_tensor(grad_placements=[Partial()]).index_select(dim, self._order[:places])


def has_ring(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch has a ring of attention kernels there: on GPUs, but for float64."""
    return device.type == "cuda" and dtype != torch.float64


def ring_attention(
    query: Float[Tensor, "batch heads own head_dim"],
    key: Float[Tensor, "batch kv_heads own head_dim"],
    value: Float[Tensor, "batch kv_heads own head_dim"],
    mesh: DeviceMesh,
    dropout: float = 0.0,
    scaling: float | None = None,
) -> Float[Tensor, "batch heads own head_dim"]:
    """Causal attention of the parts that `SequenceSplit` makes: keys and values pass from rank to rank (torch's own).

    Args:
        query: queries of this rank.
        key: keys of this rank.
        value: values of this rank.
        mesh: the ranks.
        dropout: share of the attention weights to drop.
        scaling: factor on the scores.
    """
    _enable_ring()
    grouped = query.shape[1] != key.shape[1]
    if grouped and query.dtype == torch.float32:
        # The only kernel for float32 has no groups.
        key, value = (repeat_kv(each, query.shape[1] // key.shape[1]) for each in (key, value))
        grouped = False
    query, key, value = (DTensor.from_local(each, mesh, [Shard(2)], run_check=False) for each in (query, key, value))
    with sdpa_kernel(RING_KERNELS):
        output = F.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped
        )
    assert isinstance(output, DTensor)
    return output.to_local()


@cache
def _enable_ring() -> None:
    """Let DTensors that are split along the sequence attend in a ring, in which no rank ever holds all keys."""
    from torch.distributed.tensor.experimental._attention import (  # without a stable name yet
        _enable_context_parallel_dispatcher,
        set_rotate_method,
    )

    _enable_context_parallel_dispatcher()
    set_rotate_method("alltoall")
