"""Extending a transformers model in memory."""

from types import MethodType
from typing import Any, TypeVar

import torch
import transformers
from torch import Tensor
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

from lit_pi.errors import UserError
from lit_pi.models.equality.checks import check_kind
from lit_pi.models.extended_rotary import ExtendedRotary, install_extended, rotary_of
from lit_pi.models.fingerprint import differs, phases_of, probed_positions
from lit_pi.models.rotary import Layout, ask_stock, layout_of, measured, plain_phases, stock_rotary
from lit_pi.models.sources.in_memory import check_model
from lit_pi.models.sources.provenance import (
    KEY,
    check_known,
    config_in_effect,
    put_in_effect,
    rope_of,
    rope_parameters_of,
)
from lit_pi.positions import PositionStrategy, Rope

Model = TypeVar("Model", bound=PreTrainedModel)

DEFAULT_NEW_TOKENS = 20
"""Tokens that transformers generates where nobody says how many."""


def extend(
    model: Model,
    position: PositionStrategy,
    *,
    original_context: int | None = None,
    target_context: int | None = None,
) -> Model:
    """Make a transformers model rotate by a position strategy, and its config say so.

    The model stays what it was otherwise: `model.generate`, training and `model.save_pretrained` work on, and
    transformers alone loads what is saved with the same logits. What a config cannot say is refused by
    `save_pretrained`. A model that was extended before is extended anew, from the context it was pre-trained with.
    Strategies whose angles depend on the sequence's length, and attention rules, are computed by slower attention, so
    that generating with a cache is exact for them too.

    Args:
        model: a causal language model of transformers with rotary positions; changed in place.
        position: how token positions become rotary angles from now on.
        original_context: tokens of context of pre-training, where the model's config does not say.
        target_context: tokens of context that the model is for (`config.max_position_embeddings`); by default what
            the strategy is made for.

    Returns:
        The same model.

    Raises:
        UserError: it is no such model, or its original context is unknown.
    """
    check_model(model)
    check_kind(model.config, position)
    before = rotary_of(model)
    rope = _rope(model, original_context) if before is None else before.rope.told(original_context)
    if before is not None and original_context not in (None, rope.original_context):
        raise UserError(
            f"the model was extended from {rope.original_context} tokens before, and original_context is "
            f"{original_context}: leave it out, or load the model again"
        )
    check_known(model.config, position, rope)
    position = position.for_model(rope_parameters_of(model.config), rope)
    config = config_in_effect(model.config, position, rope, target_context)
    install_extended(model, position, rope)
    put_in_effect(config, model.config)
    # The class's own methods, behind what they need to know.
    vars(model)["save_pretrained"] = MethodType(_save_pretrained, model)
    vars(model).pop("generate", None)
    if not position.prefix_consistent:
        vars(model)["generate"] = MethodType(_generate, model)
    return model


def _rope(model: PreTrainedModel, original_context: int | None) -> Rope:
    """The rotary embedding that a model of transformers was pre-trained with."""
    stock, config = stock_rotary(model), model.config
    return measured(rope_of(config, original_context), stock, config, layout_of(stock, config))


def _generate(
    self: PreTrainedModel,
    inputs: Tensor | None = None,
    generation_config: GenerationConfig | None = None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Generate as transformers does, at the angles of the longest text that may come out."""
    rotary = rotary_of(self)
    assert rotary is not None
    read = [each for each in (inputs, kwargs.get("input_ids"), kwargs.get("inputs_embeds")) if each is not None]
    prompt = read[0].shape[1] if read else 1
    settings = generation_config or self.generation_config
    new = kwargs.pop("max_new_tokens", None) or getattr(settings, "max_new_tokens", None)
    length = kwargs.pop("max_length", None) or getattr(settings, "max_length", None)
    new = new or (DEFAULT_NEW_TOKENS if length is None else max(length - prompt, 1))
    rotary.settled = prompt + new
    write: Any = type(self)
    try:
        return write.generate(self, inputs, generation_config, *args, max_new_tokens=new, **kwargs)
    finally:
        rotary.settled = None


def _save_pretrained(self: PreTrainedModel, *args: Any, **kwargs: Any) -> None:
    """Save as transformers does, if transformers will load the same model.

    Raises:
        UserError: the config cannot say how the model rotates, or says something else.
    """
    rotary = rotary_of(self)
    if rotary is not None:
        _check_config(self.config, rotary)
    type(self).save_pretrained(self, *args, **kwargs)


def _check_config(config: PreTrainedConfig, rotary: ExtendedRotary) -> None:
    name = type(rotary.position).__name__
    if refusal := getattr(config, KEY, {}).get("refusal"):
        raise UserError(
            f"the model cannot be saved for transformers: {refusal}; extend it with another strategy before saving"
        )
    with torch.device("cpu"):
        stock: Any = rotary.stock(config)
    for length, position_ids in probed_positions(rotary.rotations).items():
        for kind, of_layer in dict(zip(rotary.rotations.kinds, rotary.rotations.of_layer, strict=True)).items():
            rotation = rotary.rotations.distinct[of_layer]
            found = _phases_of_stock(stock, position_ids, kind, rotary.layout, length)
            expected = phases_of(*rotation, position_ids, length)
            for theirs, ours in zip(found, expected, strict=True):
                if theirs[0].shape == ours.shape and not differs(theirs[0], ours, position_ids):
                    continue
                raise UserError(
                    f"the model cannot be saved: it rotates by {name}, and its config was changed since and says "
                    f"something else at {length} tokens (rope_parameters {config.rope_parameters}, "
                    f"max_position_embeddings {config.max_position_embeddings}); call lit_pi.extend again"
                )


def _phases_of_stock(stock: Any, position_ids: Tensor, kind: str, layout: Layout, length: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine as transformers' own rotary embedding of a config gives them.

    Raises:
        UserError: it fails.
    """
    try:
        return plain_phases(ask_stock(stock, position_ids[None], kind), layout)
    except Exception as error:  # transformers 5.17 fails on `longrope` by kind of layer
        raise UserError(
            f"the model cannot be saved: transformers {transformers.__version__} itself fails on its config at "
            f"{length} tokens ({type(error).__name__}: {error}); try a newer transformers"
        ) from error
