"""Who holds memory while a training step runs, and what the step computes."""

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from lit_pi.planning.host import PinnedMemory


class Part(StrEnum):
    """Purposes that memory is held for, in the order of the table."""

    WEIGHTS = "weights"
    GRADIENTS = "gradients"
    OPTIMIZER = "optimizer"
    ACTIVATIONS = "activations"
    LOGITS = "logits"
    WORKSPACE = "workspace"


class Work(StrEnum):
    """Kinds of work that a device spends its time on."""

    PRODUCTS = "matrix products"
    ATTENTION = "attention"
    MEMORY = "memory traffic"


ATTENTION_FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


class Ledger(TorchDispatchMode):
    """Books every storage from the operation that makes it until it is freed; fake tensors have storages too.

    torch's own `MemTracker` follows a module through one iteration only, and its `FlopCounterMode` keeps what
    checkpointed layers compute again alive.

    Args:
        vocabulary: tensors whose last dimension is this are logits.
        shares: bytes that a device holds for each byte booked of a part, 1 by default.
        host_shares: bytes that the CPU's memory holds beside a GPU for each byte booked of a state, 0 by default; those
            of weights and gradients are pinned.
        attention: bytes beside the rest while attention's backward runs.

    Attributes:
        peak: bytes of each part when their sum was largest.
        work: FLOP of matrix products and of causal attention, which counts half, and bytes read and written by others.
    """

    def __init__(
        self, vocabulary: int, shares: Mapping[Part, float], host_shares: Mapping[Part, float], attention: int
    ) -> None:
        super().__init__()
        self._attention = attention
        self._vocabulary = vocabulary
        self._shares = shares
        self._host_shares = host_shares
        self._pinned = PinnedMemory()
        self._blocks: dict[int, int] = {}
        self._booked: dict[int, tuple[Part, int]] = {}
        self._now: Counter[Part] = Counter()
        self._default = Part.ACTIVATIONS
        self._beside: Mapping[Part, int] = {}
        self.peak: dict[Part, float] = {}
        self.work: Counter[Work] = Counter()

    @property
    def host(self) -> float:
        """Bytes that the CPU's memory holds beside a GPU."""
        return self._pinned.bytes + self._now[Part.OPTIMIZER] * self._host_shares.get(Part.OPTIMIZER, 0)

    def start(self) -> None:
        """Forget the largest sum and the work so far, and not what is held."""
        self.peak = {}
        self.work.clear()

    @contextmanager
    def phase(self, default: Part, beside: Mapping[Part, int] | None = None) -> Iterator[None]:
        """Book what is made for one part, and beside it bytes that no operation shows."""
        before = self._default, self._beside
        self._default, self._beside = default, beside or {}
        self._note_peak()
        try:
            yield
        finally:
            self._default, self._beside = before

    def own(self, part: Part, tensors: Iterable[Tensor]) -> None:
        """Book tensors for a part, whatever they were booked for."""
        for storage in (storage for tensor in tensors for storage in storages(tensor)):
            before = self._booked.get(storage._cdata)
            if before is None:
                self._book(storage, part, storage.nbytes())
            else:
                self._now[before[0]] -= before[1]
                self._now[part] += before[1]
                self._booked[storage._cdata] = part, before[1]
            if part in self._host_shares and part is not Part.OPTIMIZER:
                self._pin(storage, storage.nbytes() * self._host_shares[part])

    def _pin(self, storage: torch.UntypedStorage, size: float) -> None:
        if storage._cdata not in self._blocks:
            self._blocks[storage._cdata] = self._pinned.take(size)

    def _book(self, storage: torch.UntypedStorage, part: Part, size: int) -> None:
        place = storage._cdata
        self._booked[place] = part, size
        self._now[part] += size
        weakref.finalize(storage, self._free, place)
        self._note_peak()

    def _free(self, place: int) -> None:
        part, size = self._booked.pop(place)
        self._now[part] -= size
        if (block := self._blocks.pop(place, None)) is not None:
            self._pinned.give_back(block)

    def held(self, part: Part) -> float:
        """Bytes on a device now."""
        return self._now[part] * self._shares.get(part, 1.0) + self._beside.get(part, 0)

    def _note_peak(self, workspace: int = 0) -> None:
        held = {part: self.held(part) for part in Part}
        held[Part.WORKSPACE] += workspace
        if sum(held.values()) > sum(self.peak.values()):
            self.peak = held

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and book what it makes."""
        kwargs = kwargs or {}
        made = function(*args, **kwargs)
        fresh = False
        for tensor in tree_leaves(made):
            for storage in storages(tensor) if isinstance(tensor, Tensor) else ():
                if storage._cdata not in self._booked:
                    logits = tensor.dim() > 1 and tensor.shape[-1] == self._vocabulary
                    pinned = kwargs.get("pin_memory")
                    self._book(storage, Part.LOGITS if logits else self._default, 0 if pinned else storage.nbytes())
                    if pinned:
                        self._pin(storage, storage.nbytes())
                    fresh = True
        if function is ATTENTION_BACKWARD:
            self._note_peak(self._attention)
        self._count(function, args, kwargs, made, fresh)
        return made

    def _count(self, function: Any, args: Any, kwargs: Any, made: Any, fresh: bool) -> None:
        if function is ATTENTION_FORWARD:
            self.work[Work.ATTENTION] += sdpa_flop_count(*_ungrouped(args[:3])) // 2
        elif function is ATTENTION_BACKWARD:
            self.work[Work.ATTENTION] += sdpa_backward_flop_count(*_ungrouped(args[:4])) // 2
        elif (formula := flop_registry.get(function._overloadpacket)) is not None:
            self.work[Work.PRODUCTS] += formula(*args, **kwargs, out_val=made)
        elif fresh or function._schema.is_mutable:
            tensors = (each for each in tree_leaves((args, kwargs, made)) if isinstance(each, Tensor))
            self.work[Work.MEMORY] += sum(each.numel() * each.element_size() for each in tensors)


def _ungrouped(tensors: Sequence[Tensor]) -> Iterator[tuple[int, ...]]:
    """Shapes in attention, those of keys and values with as many heads as queries have: torch 2.11 counts no groups."""
    heads = max(each.shape[1] for each in tensors)
    return ((each.shape[0], heads, *each.shape[2:]) for each in tensors)


def storages(tensor: Tensor) -> Iterator[torch.UntypedStorage]:
    """The storages of a tensor, or of the tensors it is made of, as an optimizer's quantised states are."""
    if is_traceable_wrapper_subclass(tensor):
        for name in tensor.__tensor_flatten__()[0]:
            yield from storages(getattr(tensor, name))
    else:
        yield tensor.untyped_storage()
