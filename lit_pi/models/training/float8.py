"""Matrix products of decoder layers in float8, with weights that stay as they are."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from lit_pi.errors import UserError
from lit_pi.models.language_model import LanguageModel

Float8 = Literal["tensorwise", "rowwise", "rowwise_with_gw_hp"]
"""Recipes of torchao: one scale a tensor (fastest), one a row, or that with weights' gradients in high precision."""

CAPABILITY = (8, 9)
"""Compute capability of the first NVIDIA GPUs whose matrix units take float8."""


def use_float8(model: LanguageModel, recipe: Float8, device: torch.device) -> None:
    """Let the linear layers of a model's decoder layers multiply in float8, in place; parameters keep their names.

    Raises:
        UserError: torchao is not installed, or the device has no such units.
    """
    try:
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training
    except ImportError as error:
        raise UserError(f"model.float8 is {recipe}, which needs torchao: pip install 'lit_pi[fast]'") from error
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < CAPABILITY:
        raise UserError(
            f"model.float8 is {recipe}, and {device} multiplies no float8 matrices: leave it out, or use an NVIDIA GPU "
            "of compute capability 8.9 or later"
        )
    convert_to_float8_training(model.decoder_layers, config=Float8LinearConfig.from_recipe_name(recipe))


@contextmanager
def in_high_precision(model: LanguageModel) -> Iterator[None]:
    """Multiply as without `use_float8`: where a whole tensor has one scale, its tokens round one another."""
    classes = {module: type(module) for module in model.modules() if isinstance(module, nn.Linear)}
    for module in classes:
        module.__class__ = nn.Linear
    try:
        yield
    finally:
        for module, kind in classes.items():
            module.__class__ = kind
