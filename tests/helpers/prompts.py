"""Prompts of any lengths in one batch, as evaluations make them."""

from collections.abc import Sequence
from typing import Any

import torch

from lit_pi.batches import Decoding, GenerationBatch


def batch_of(prompts: Sequence[Sequence[int]], new: int, **options: Any) -> GenerationBatch:
    """Greedy for `new` tokens unless the options of `Decoding` say otherwise; padded with token 1."""
    rows = torch.nn.utils.rnn.pad_sequence([torch.as_tensor(ids) for ids in prompts], batch_first=True, padding_value=1)
    lengths = torch.tensor([len(ids) for ids in prompts])
    generator = torch.Generator().manual_seed(0)
    return GenerationBatch(
        evaluation="texts",
        input_ids=rows,
        lengths=lengths,
        context_lengths=lengths + new,
        documents=torch.arange(len(rows)),
        decoding=Decoding(new, **options),
        draws=torch.rand(len(rows), new, generator=generator),
    )
