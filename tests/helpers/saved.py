"""What autograd keeps for the backward pass."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Saved:
    """Storages that were kept, alive so that none takes another's place."""

    def __init__(self) -> None:
        self._storages: dict[int, torch.UntypedStorage] = {}

    def keep(self, tensor: Tensor) -> Tensor:
        self._storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    def bytes_beside(self, others: Iterable[Tensor]) -> int:
        places = {each.untyped_storage().data_ptr() for each in others}
        return sum(storage.nbytes() for place, storage in self._storages.items() if place not in places)


@contextmanager
def saving() -> Iterator[Saved]:
    """Collect what the graph of operations inside keeps in the hands of autograd."""
    saved = Saved()
    with torch.autograd.graph.saved_tensors_hooks(saved.keep, lambda tensor: tensor):
        yield saved
