"""A digest of weights, the same however ranks share them, that never leaves the device but for a number a tensor."""

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FlatParameter
from torch.distributed.tensor import DTensor
from zlib_ng.zlib_ng import crc32

from lit_pi.parallel.shards import own_part

CHUNK = 2**24
"""Values that are added up at once."""
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def weight_digest(module: nn.Module, device: torch.device) -> str:
    """Digest the parameters of a module, by their names: sums of their bits and of the squares of these.

    Args:
        module: the module.
        device: where ranks add up their parts; parameters may lie elsewhere.
    """
    named = list(module.named_parameters())
    sums = torch.stack([_sums(own_part(parameter.detach())).to(device) for _, parameter in named])
    sharded = [isinstance(parameter, DTensor | FlatParameter) for _, parameter in named]
    if any(sharded):
        of_shards = sums[sharded]
        distributed.all_reduce(of_shards)
        sums[sharded] = of_shards
    text = "\n".join(f"{name} {pair}" for (name, _), pair in zip(named, sums.tolist(), strict=True))
    return f"{crc32(text.encode()):08x}"


def _sums(tensor: Tensor) -> Tensor:
    found = torch.zeros(2, dtype=torch.int64, device=tensor.device)
    for part in tensor.contiguous().view(BITS[tensor.element_size()]).flatten().split(CHUNK):
        bits = part.to(torch.int64)
        found += torch.stack((bits.sum(), (bits * bits).sum()))
    return found
