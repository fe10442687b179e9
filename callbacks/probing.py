"""Trying out the live model in callbacks without leaving a trace in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lit_pi.module import LitLlama


@contextmanager
def without_trace(module: LitLlama) -> Iterator[None]:
    """No gradients, no dropout, and random state and modes as they were."""
    modes = {part: part.training for part in module.modules()}
    devices = [module.device] if module.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        module.eval()
        try:
            yield
        finally:
            for part, mode in modes.items():
                part.training = mode
