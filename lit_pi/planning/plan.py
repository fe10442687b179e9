"""Plans: what a training run will need, and how far its context could reach."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import psutil
import torch

from lit_pi.models.layers.layer_forward import CheckpointingMode
from lit_pi.models.training.activation_budget import LADDER, STEPS, climb, fillable
from lit_pi.planning.ledger import Part, Work
from lit_pi.planning.tracer import Trace, Tracer

LENGTH_MULTIPLE = 8
"""Context lengths are multiples of this many tokens."""

TRACES = 10
"""Steps that are traced at most in search of the longest context."""

CLOSE = 0.99
"""Part of a device's memory that the longest context uses at least."""


class Memory(NamedTuple):
    """The memory that there is for a step.

    Attributes:
        device: bytes of a device.
        host: bytes of the CPU's memory for what is moved there from one GPU.
    """

    device: float
    host: float

    def filled(self, trace: Trace) -> float:
        """Share that a step takes of whichever it fills more; it fits up to 1."""
        return max(trace.bytes / self.device, trace.host / self.host)


class Plan(NamedTuple):
    """Needs of one training step on one device, and the longest context that fits.

    Attributes:
        context_length: tokens of a sequence.
        tokens: tokens of the device's batch.
        peak: bytes on the device by part when most are held.
        host: bytes in the CPU's memory beside a GPU.
        seconds: time of a step, from rates measured on the device; communication is not in it.
        memory: the memory that there is.
        longest: context length in tokens whose step fits into that memory, 0 if none does.
    """

    context_length: int
    tokens: int
    peak: Mapping[Part, float]
    host: float
    seconds: float
    memory: Memory
    longest: int


def seconds(trace: Trace, rates: Mapping[Work, float]) -> float:
    """Time of a step that does one kind of work after another, in seconds."""
    return sum(amount / rates[work] for work, amount in trace.work.items())


def memory_of(device: torch.device, processes: int) -> Memory:
    """The memory that a device and its host have for each of so many processes on that host."""
    host = psutil.virtual_memory().available / processes
    if device.type == "cuda":
        return Memory(torch.cuda.get_device_properties(device).total_memory, host)
    return Memory(host, math.inf)


def search(tracer: Tracer, first: Trace, memory: Memory) -> Iterator[Trace]:
    """Traces of context lengths that come ever closer to filling the memory, from one that was traced.

    What is held grows with the context length, linearly where no matrix of all pairs of tokens is: a line through the
    longest that fits and the shortest that does not gives the next to try.
    """
    fits, fails = (first, None) if memory.filled(first) <= 1 else (None, first)
    for _ in range(TRACES):
        if fits is not None and memory.filled(fits) > CLOSE:
            return
        if fails is None:
            assert fits is not None
            length = 2 * fits.context_length
        elif fits is None:
            length = fails.context_length // 4
        else:
            slope = (fails.context_length - fits.context_length) / (memory.filled(fails) - memory.filled(fits))
            # A little below all of it, so that it fits.
            length = fits.context_length + int(slope * ((1 + CLOSE) / 2 - memory.filled(fits)))
        length = length // LENGTH_MULTIPLE * LENGTH_MULTIPLE
        if length < LENGTH_MULTIPLE or (fits is not None and length <= fits.context_length):
            return
        trace = tracer.step(length)
        yield trace
        if memory.filled(trace) <= 1:
            fits = trace
        else:
            fails = trace


def settle(tracer: Tracer, trace: Trace, memory: Memory, memory_gib: float | None) -> Trace:
    """The traced step, whose layers keep least, as it is when `auto` has let them climb.

    Args:
        tracer: traces steps of the model.
        trace: the traced step.
        memory: the memory that there is.
        memory_gib: GiB of it that `auto` may fill, all but a reserve by default.
    """
    limit = fillable(memory.device, memory.device, memory_gib)
    if trace.bytes > limit:
        return trace
    layers = len(tracer.model.layer_forwards)
    modes = [LADDER[0]] * layers
    kept: dict[CheckpointingMode, int] = {LADDER[0]: round(trace.kept / layers)}
    for rung in LADDER[1:]:
        tracer.set_modes([rung] * layers)
        kept[rung] = round(tracer.step(trace.context_length).kept / layers)
    for _ in range(STEPS):
        before, modes = modes, climb(modes, kept, limit - trace.bytes)
        tracer.set_modes(modes)
        if modes == before:
            break
        trace = tracer.step(trace.context_length)
    return trace
