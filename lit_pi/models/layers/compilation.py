"""Functions compiled once for all layers of a model."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from lit_pi.errors import UserError

BACKEND = "inductor"
"""The backend of torch.compile."""

VARIANTS = 64
"""Graphs of one function at most: what layers keep, with and without gradients, masks, and shapes that come late."""


def compiles(choice: bool | None, device: torch.device) -> bool:
    """Whether decoder layers run compiled on a device; without a choice they do on GPUs."""
    return device.type == "cuda" if choice is None else choice


def run_compiled(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function as one graph, compiled when its arguments are of a new kind; a second shape makes shapes dynamic.

    Raises:
        UserError: torch cannot make one graph of it.
    """
    try:
        return _compiled(function, BACKEND)(*args, **kwargs)
    except torch._dynamo.exc.Unsupported as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"a decoder layer cannot be compiled ({reason}): set model.compile_layers to false") from error


@cache
def _compiled(function: Callable[..., Any], backend: str) -> Callable[..., Any]:
    # Beyond the limit torch would run the function uncompiled.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
    return torch.compile(function, fullgraph=True, backend=backend)
