"""Positional skip-wise training: short sequences that stand for long ones."""

import zlib
from typing import Annotated

import torch
from jaxtyping import Int
from torch import Tensor

from lit_pi.errors import UserError
from lit_pi.positions.train_positions import TrainPositions
from lit_pi.ranges import Range, Seed, Tokens, in_range


class PoSE(TrainPositions):
    """Skips between chunks of a sequence, so that its positions span a longer context (Zhu et al. 2023, 2309.10400).

    A piece of l tokens is cut into `chunks` at random places. Chunk i stands u_i tokens later than it would, u_0 = 0
    and u_i uniform from u_(i-1) to `target_context` - l (section 3.2, equations 4 to 6). Chunks see each other; only
    their distance is larger. Each row draws from a generator of its own, seeded by seed, step and the row's tokens:
    a resumed run draws what an uninterrupted one would have.

    Args:
        target_context: tokens of context to train for (L').
        chunks: pieces of a sequence (N), at least 2.
        seed: chooses the random cuts and skips.

    Raises:
        UserError: fewer than 2 chunks, or a sequence is longer than the target context.
    """

    @in_range
    def __init__(self, target_context: Tokens, chunks: Annotated[int, Range(2)] = 2, seed: Seed = 0) -> None:
        self.target_context = target_context
        self.chunks = chunks
        self.seed = seed

    def context_length(self, seq: int) -> int:
        """The target context."""
        if seq > self.target_context:
            raise UserError(
                f"PoSE got target_context {self.target_context}, which is shorter than the sequences of {seq} tokens: "
                "raise it, or lower data.context_length"
            )
        return self.target_context

    def __call__(
        self, position_ids: Int[Tensor, "batch seq"], input_ids: Int[Tensor, "batch seq"], step: int
    ) -> Int[Tensor, "batch seq"]:
        """Positions with skips."""
        rows = zip(position_ids, input_ids, strict=True)
        skips = [self._skips(places, self._generator(tokens, step)) for places, tokens in rows]
        return position_ids + torch.stack(skips)

    def _generator(self, tokens: Int[Tensor, " seq"], step: int) -> torch.Generator:
        digest = zlib.crc32(f"{self.seed} {step} ".encode() + tokens.numpy().tobytes())
        return torch.Generator().manual_seed(digest)

    def _skips(self, positions: Int[Tensor, " seq"], generator: torch.Generator) -> Int[Tensor, " seq"]:
        """Tokens by which each token of a row stands later than it would; the row's pieces skip one by one."""
        starts = (positions == 0).nonzero()[:, 0]
        lengths = torch.diff(starts, append=torch.tensor([len(positions)]))
        return torch.cat([self._skips_of_piece(length, generator) for length in lengths.tolist()])

    def _skips_of_piece(self, length: int, generator: torch.Generator) -> Int[Tensor, " piece"]:
        # Cuts are different places, none of them the first token's.
        places = torch.randperm(length - 1, generator=generator)[: self.chunks - 1].sort().values + 1
        skips, skip = torch.zeros(length, dtype=torch.long), 0
        for place in places.tolist():
            skip += int(torch.randint(self.target_context - length - skip + 1, (), generator=generator))
            skips[place:] = skip
        return skips
