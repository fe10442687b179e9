"""Text that follows prompts of any lengths, token by token."""

from collections import defaultdict
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from lit_pi.batches import Decoding, Generated, GenerationBatch
from lit_pi.models.language_model import LanguageModel
from lit_pi.models.past import Past


@torch.no_grad()
def generate(model: LanguageModel, batch: GenerationBatch, anyone: Callable[[bool], bool] = bool) -> Generated:
    """Continue every prompt as it would be continued alone.

    A row's context length holds from the first step on, so that keys in the cache keep their angles: decoding step by
    step equals a full pass at that length, for every strategy. Rows whose context lengths have different angles are
    decoded apart.

    Args:
        model: continues them.
        batch: the prompts.
        anyone: whether a flag is set on any rank, where all ranks must run as many forwards.
    """
    new = batch.decoding.max_new_tokens
    token_ids = batch.input_ids.new_zeros(len(batch.lengths), new)
    lengths, stopped = torch.zeros_like(batch.lengths), torch.zeros_like(batch.lengths, dtype=torch.bool)
    groups = _groups(model, batch.context_lengths.tolist())
    rows: list[int] = []
    while anyone(bool(groups)):
        rows = groups.pop() if groups else rows  # another rank has more groups: what comes out is the same again
        token_ids[rows], lengths[rows], stopped[rows] = _decode(model, _rows_of(batch, rows), anyone)
    return Generated(token_ids, lengths, stopped)


def _groups(model: LanguageModel, context_lengths: list[int]) -> list[list[int]]:
    """Rows whose positions have the same angles."""
    if model.rotations.prefix_agrees(context_lengths):
        return [list(range(len(context_lengths)))]
    groups = defaultdict(list)
    for row, length in enumerate(context_lengths):
        groups[length].append(row)
    return list(groups.values())


def _rows_of(batch: GenerationBatch, rows: list[int]) -> GenerationBatch:
    lengths = batch.lengths[rows]
    return batch._replace(
        input_ids=batch.input_ids[rows, : int(lengths.max())],
        lengths=lengths,
        context_lengths=batch.context_lengths[rows],
        documents=batch.documents[rows],
        draws=None if batch.draws is None else batch.draws[rows],
    )


def _decode(model: LanguageModel, batch: GenerationBatch, anyone: Callable[[bool], bool]) -> Generated:
    new, columns = batch.decoding.max_new_tokens, batch.input_ids.shape[1]
    past = Past(batch.lengths, columns, new, int(batch.context_lengths.max()))
    ends, place = torch.unique(batch.lengths - 1, return_inverse=True)
    logits = model.read(batch.input_ids, past, ends)[torch.arange(len(place)), place]
    stop_ids = torch.tensor(batch.decoding.stop_ids, device=place.device)
    done, stopped = batch.documents < 0, torch.zeros_like(batch.documents, dtype=torch.bool)
    token_ids, lengths = batch.input_ids.new_zeros(len(place), new), torch.zeros_like(batch.lengths)
    for step in range(new):
        tokens = choose(logits, batch.decoding, None if batch.draws is None else batch.draws[:, step])
        stopped |= ~done & torch.isin(tokens, stop_ids)
        done |= stopped
        token_ids[:, step] = tokens.masked_fill(done, 0)
        lengths += ~done
        if step + 1 == new or not anyone(not bool(done.all())):
            break
        logits = model.read(tokens[:, None], past)[:, 0]
    return Generated(token_ids, lengths, stopped)


def choose(
    logits: Float[Tensor, "batch vocabulary"], decoding: Decoding, draws: Float[Tensor, " batch"] | None
) -> Int[Tensor, " batch"]:
    """The next token of each row.

    Args:
        logits: logits of the next token.
        decoding: whether it is the most likely one or a sample.
        draws: numbers from 0 to 1, which choose the sample by the inverse of its distribution function.
    """
    if decoding.temperature == 0:
        return logits.argmax(dim=-1)
    assert draws is not None
    nothing = torch.empty(0, dtype=torch.long)  # the warpers do not look at what came before
    warm = TemperatureLogitsWarper(decoding.temperature)(nothing, logits)
    kept = TopPLogitsWarper(decoding.top_p)(nothing, warm)
    cumulative = kept.double().softmax(dim=-1).cumsum(dim=-1)
    tokens = torch.searchsorted(cumulative, draws[:, None].double() * cumulative[:, -1:], right=True)[:, 0]
    return tokens.clamp(max=logits.shape[-1] - 1)  # where logits are not numbers
