"""Which ranks share the data, and what each gets of it: those that split one sequence between them count as one."""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import NamedTuple, TypeVar

from lightning.pytorch import Trainer
from torch.distributed import ProcessGroup

Item = TypeVar("Item")


class DataRanks(NamedTuple):
    """The ranks that get different batches.

    Attributes:
        size: how many there are.
        rank: the number of this one among them.
        group: process group of these ranks alone, where others get the same batches and would be counted twice.
        repeats: whether a lower rank gets the same batches.
    """

    size: int
    rank: int
    group: ProcessGroup | None
    repeats: bool


def data_ranks(trainer: Trainer | None) -> DataRanks:
    """The ranks that get different batches from this trainer's dataloaders; without one, just this rank."""
    if trainer is None:
        return DataRanks(1, 0, None, repeats=False)
    module = trainer.lightning_module
    mesh = None if module is None else module.device_mesh
    if mesh is None:
        return DataRanks(trainer.world_size, trainer.global_rank, None, repeats=False)
    own, same = mesh["data_parallel"], mesh["tensor_parallel"]
    return DataRanks(own.size(), own.get_local_rank(), own.get_group(), same.get_local_rank() > 0)


def share_out(items: Sequence[Item], filler: Item, batch_size: int, world_size: int) -> Iterator[list[Item]]:
    """Batches of items, each round of `world_size` of them equally large.

    Args:
        items: items of one shape.
        filler: an item that stands where a round has none left.
        batch_size: items of a batch at most.
        world_size: ranks; rank r takes every `world_size`-th batch from the r-th on.
    """
    for start in range(0, len(items), batch_size * world_size):
        round_ = list(items[start : start + batch_size * world_size])
        rows = ceil(len(round_) / world_size)
        round_ += [filler] * (rows * world_size - len(round_))
        yield from (round_[rank::world_size] for rank in range(world_size))
