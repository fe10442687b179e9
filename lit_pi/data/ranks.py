"""Which ranks share the data: those that split one sequence between them count as one."""

from typing import NamedTuple

from lightning.pytorch import Trainer
from torch.distributed import ProcessGroup


class DataRanks(NamedTuple):
    """The ranks that get different batches.

    Attributes:
        size: how many.
        rank: which of them this one is.
        group: they alone, where other ranks get the same batches; sums over more would count twice.
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
