"""Parts of a sequence: each position in one of them, as much attention in each, and all of them put together again."""

from types import SimpleNamespace

import pytest
import torch

from lit_pi.models.attention.sequence_split import SequenceSplit


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("seq", [1, 11, 12])
def test_every_rank_computes_as_much_and_together_they_compute_all(ranks: int, seq: int) -> None:
    whole = torch.stack((torch.arange(seq), torch.arange(seq) + 100))
    parts, pairs = [], set()
    for rank in range(ranks):
        mesh = SimpleNamespace(size=lambda: ranks, get_local_rank=lambda rank=rank: rank)
        split = SequenceSplit(mesh, torch.arange(seq)[None])
        parts.append(split.own(whole, -1))
        pairs.add(int((split.places + 1).sum()))
        assert [split.seen_by(own) for own in range(1, len(split.places) + 1)] == (split.places + 1).tolist()
    assert len(pairs) == 1
    found = torch.cat(parts, dim=1)
    assert torch.equal(found[:, found[0] >= 0].sort().values, whole)
