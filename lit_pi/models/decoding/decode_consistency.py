"""Tokens scored in one pass, and one by one with the cache that decoding uses."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from lit_pi.batches import GenerationBatch
from lit_pi.models.language_model import LanguageModel
from lit_pi.models.past import Past


class BothWays(NamedTuple):
    """Negative log-likelihoods of the same tokens, in nats.

    Attributes:
        token_nll: measured in one pass over each row alone, without a cache.
        decoded_nll: measured in a pass over the prompts and a step for every token after them, with a cache.
    """

    token_nll: Float[Tensor, "batch target"]
    decoded_nll: Float[Tensor, "batch target"]


@torch.no_grad()
def score_both_ways(model: LanguageModel, batch: GenerationBatch) -> BothWays:
    """Score the targets of a batch in a full pass and as decoding would read them.

    Args:
        model: scores them.
        batch: prompts and as many targets of each; one context length for all rows.
    """
    targets = batch.targets
    assert targets is not None
    (context_length,) = set(batch.context_lengths.tolist())
    steps = targets.shape[1]
    full = []
    for tokens, length, follows in zip(batch.input_ids, batch.lengths.tolist(), targets, strict=True):
        row = torch.cat((tokens[:length], follows[:-1]))[None]
        scored = torch.arange(length - 1, length - 1 + steps, device=row.device)
        full.append(model(row, follows[None], scored=scored, context_length=context_length))

    past = Past(batch.lengths, batch.input_ids.shape[1], steps, context_length)
    ends, place = torch.unique(batch.lengths - 1, return_inverse=True)
    logits = model.read(batch.input_ids, past, ends)[torch.arange(len(place)), place]
    decoded = [cross_entropy(logits, targets[:, 0], reduction="none")]
    for step in range(1, steps):
        logits = model.read(targets[:, step - 1, None], past)[:, 0]
        decoded.append(cross_entropy(logits, targets[:, step], reduction="none"))
    return BothWays(torch.cat(full), torch.stack(decoded, dim=1))
