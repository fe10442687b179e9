"""Numbers that ranks know only together."""

import torch.distributed
from torch import Tensor


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a number over all ranks, float32 on its device; itself where there is one process."""
    mean = value.float()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(mean)
        mean /= torch.distributed.get_world_size()
    return mean
