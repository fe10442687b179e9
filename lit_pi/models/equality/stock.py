"""A live model computing by transformers' own code, with the weights that it has."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lit_pi.models.attention.attend import ATTENTION
from lit_pi.models.language_model import LanguageModel
from lit_pi.models.rotary import install_rotary
from lit_pi.models.sources.provenance import written_rope_parameters
from lit_pi.positions import FromConfig, LayerRotations

EAGER = "eager"
"""transformers' attention that honours whatever a model's layers ask for, soft caps and sinks included."""


@contextmanager
def as_stock(model: LanguageModel, rotary: Any = None, attention: str = EAGER) -> Iterator[None]:
    """Let a model run as transformers' classes compute it, whatever was put over their methods here.

    Args:
        model: the model, sharded or not; what it computes by is put back afterwards.
        rotary: gives the phases; by default transformers' own, as the model's config has it. Where layers have
            several, it has `phases_of_layer`.
        attention: name of what computes attention.
    """
    llm, own = model.llm, model.rotary
    device = next(llm.parameters()).device
    give = None if rotary is None else rotary.phases_of_layer
    if rotary is None:
        with torch.device("cpu"):
            rotary = model.stock(llm.config)
        rotary.to(device)
    covered = [(module, vars(module).pop("forward")) for module in llm.modules() if "forward" in vars(module)]
    before = llm.config._attn_implementation, own.give
    llm.set_attn_implementation(attention)
    install_rotary(llm, rotary)
    own.give, model.stock_runs = give, True
    try:
        yield
    finally:
        model.stock_runs = False
        install_rotary(llm, own)
        attention, own.give = before
        llm.set_attn_implementation(attention)
        for module, forward in covered:
            vars(module)["forward"] = forward


@contextmanager
def with_own_positions(model: LanguageModel) -> Iterator[None]:
    """Let a model rotate as its config says, whatever strategy is in effect."""
    rotary, llm = model.rotary, model.llm
    before, attention = rotary.rotations, llm.config._attn_implementation
    own = FromConfig().for_model(written_rope_parameters(llm.config), before.rope)
    rotary.rotations = LayerRotations(own, before.rope, before.kinds)
    llm.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        rotary.rotations = before
        llm.set_attn_implementation(attention)
