"""The positions that a config tells of: those of pre-training, and those in effect."""

import copy
from typing import Any

from transformers import PreTrainedConfig

from lit_pi.errors import UserError
from lit_pi.positions import FromConfig, PositionStrategy, Rope

KEY = "lit_pi"
"""Entry that lit_pi adds to a config: `rope` of pre-training, `position` in effect, and `refusal` (see below)."""


def config_in_effect(
    config: PreTrainedConfig, position: PositionStrategy, rope: Rope, target_context: int | None = None
) -> PreTrainedConfig:
    """A copy of a config with the positions in effect, which remembers those of pre-training.

    Where transformers cannot express the strategy, `rope_parameters` are those of pre-training, and the entry's
    `refusal` says why. What the config says already is left as it says it.

    Args:
        config: the model's config.
        position: the strategy in effect.
        rope: the rotary embedding of pre-training.
        target_context: tokens of context that the model is for; by default what the strategy is made for.
    """
    said = _says(config, position, rope)
    context = target_context or (config.max_position_embeddings if said else position.target_context_of(rope))
    config = copy.deepcopy(config)
    record: dict[str, Any] = {"rope": rope._asdict(), "position": position.describe()}
    if not said:
        try:
            config.rope_parameters = position.rope_parameters(rope)
        except UserError as refusal:
            record["refusal"] = str(refusal)
            config.rope_parameters = {"rope_type": "default", "rope_theta": rope.rope_theta}
    setattr(config, KEY, record)
    # Transformers' `dynamic` type reads the original context there.
    dynamic = config.rope_parameters["rope_type"] == "dynamic"
    config.max_position_embeddings = rope.original_context if dynamic else context
    return config


def put_in_effect(said: PreTrainedConfig, config: PreTrainedConfig) -> None:
    """Let a config, which a model's modules share, say what `config_in_effect` made of a copy."""
    for name in (KEY, "rope_parameters", "max_position_embeddings"):
        setattr(config, name, getattr(said, name))


def _says(config: PreTrainedConfig, position: PositionStrategy, rope: Rope) -> bool:
    """Whether a config asks for this strategy already."""
    try:
        return FromConfig().for_model(rope_parameters_of(config), rope).describe() == position.describe()
    except UserError:
        return False


def rope_parameters_of(config: PreTrainedConfig) -> dict[str, Any]:
    """The `rope_parameters` in effect; a strategy that they cannot express stands there with its class as type."""
    record = getattr(config, KEY, {})
    if "refusal" in record:
        return {"rope_type": record["position"]["class"]}
    return config.rope_parameters or {}


def rope_of(config: PreTrainedConfig, original_context: int | None = None) -> Rope:
    """The rotary embedding of pre-training, as a config tells it.

    Args:
        config: the model's config.
        original_context: tokens of context of pre-training, where the config does not say.

    Raises:
        UserError: the config holds an extension that does not say what it extended.
    """
    if (record := getattr(config, KEY, None)) is not None:
        return Rope(**record["rope"])
    parameters = config.rope_parameters or {}
    kind = parameters.get("rope_type", "default")
    if original_context is None:
        original_context = parameters.get("original_max_position_embeddings")
    if original_context is None:
        if kind == "linear":  # the other types leave max_position_embeddings as pre-training had it
            raise UserError(
                f"the model's config already extends its context ({parameters}) and does not say from how many "
                "tokens: give `original_context`, the context of pre-training"
            )
        original_context = config.max_position_embeddings
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    # The `proportional` type turns a part of the frequencies, the others a part of the dimensions.
    part = 1.0 if kind == "proportional" else parameters.get("partial_rotary_factor", 1.0)
    return Rope(int(head_dim * part), float(parameters["rope_theta"]), original_context)
