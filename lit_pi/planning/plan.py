"""What a training run will need, and how far its context could reach."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import psutil
import torch

from lit_pi.planning.ledger import Part, Work
from lit_pi.planning.tracer import Trace, Tracer

LENGTH_MULTIPLE = 8
"""Context lengths are multiples of this many tokens."""

TRACES = 10
"""Steps that are traced at most in search of the longest context."""

CLOSE = 0.99
"""Part of a device's memory that the longest context uses at least."""


class Plan(NamedTuple):
    """Of one device and one step.

    Attributes:
        context_length: tokens of a sequence.
        tokens: of the device's batch.
        peak: bytes by part when most are held.
        seconds: of a step, from rates measured on the device; communication is not in it.
        memory: bytes that the device has.
        longest: context length in tokens whose step fits into that memory, 0 if none does.
    """

    context_length: int
    tokens: int
    peak: Mapping[Part, float]
    seconds: float
    memory: float
    longest: int


def seconds(trace: Trace, rates: Mapping[Work, float]) -> float:
    """Of a step that does one kind of work after another."""
    return sum(amount / rates[work] for work, amount in trace.work.items())


def memory_of(device: torch.device) -> float:
    """Bytes of a GPU, or what the host has to give."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return float(psutil.virtual_memory().available)


def search(tracer: Tracer, first: Trace, memory: float) -> Iterator[Trace]:
    """Traces of context lengths that come ever closer to filling the memory, from one that was traced.

    Memory grows with the context length, linearly where no matrix of all pairs of tokens is held: a line through the
    longest that fits and the shortest that does not gives the next to try.
    """
    fits, fails = (first, None) if first.bytes <= memory else (None, first)
    for _ in range(TRACES):
        if fits is not None and fits.bytes > CLOSE * memory:
            return
        if fails is None:
            assert fits is not None
            length = 2 * fits.context_length
        elif fits is None:
            length = fails.context_length // 4
        else:
            slope = (fails.context_length - fits.context_length) / (fails.bytes - fits.bytes)
            # A little below the memory, so that it fits.
            length = fits.context_length + int(slope * ((1 + CLOSE) / 2 * memory - fits.bytes))
        length = length // LENGTH_MULTIPLE * LENGTH_MULTIPLE
        if length < LENGTH_MULTIPLE or (fits is not None and length <= fits.context_length):
            return
        trace = tracer.step(length)
        yield trace
        if trace.bytes <= memory:
            fits = trace
        else:
            fails = trace
