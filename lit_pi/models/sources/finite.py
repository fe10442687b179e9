"""Weights that are finite numbers: NaN or infinity in one of them makes every result NaN, whatever else is right."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from lit_pi.errors import UserError
from lit_pi.models.sources.naming import first_few


def not_finite(weights: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of the tensors that hold NaN or infinity; of sharded ones, all ranks have to ask together.

    Args:
        weights: names and tensors, as `named_parameters` gives them; those without data are left out.
    """
    return [name for name, weight in weights if not (weight.is_meta or _is_finite(weight.detach()))]


def check_finite(place: object, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Check that a model's weights are finite numbers, in the dtype they have been read in.

    Args:
        place: where they come from, for the message.
        weights: names and tensors.

    Raises:
        UserError: one holds NaN or infinity.
    """
    named = dict(weights)
    if names := not_finite(named.items()):
        dtype = str(named[names[0]].dtype).removeprefix("torch.")
        raise UserError(
            f"weights of {place} are not finite, NaN or infinity as {dtype}: {first_few(names)}; take a checkpoint "
            "from before they were spoilt"
        )


def _is_finite(weight: Tensor) -> bool:
    if isinstance(weight, DTensor):
        count: Any = (~weight.isfinite()).sum()
        return not count.full_tensor()
    # The extremes take a tenth of the time of `isfinite`, which writes a tensor; NaN is both of them.
    return not weight.numel() or all(bool(extreme.isfinite()) for extreme in torch.aminmax(weight))
