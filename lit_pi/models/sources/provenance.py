"""The positions that a config tells of: those of pre-training, and those in effect."""

import copy
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from lit_pi.errors import UserError
from lit_pi.positions import FULL_ATTENTION, ByLayer, Extrapolate, FromConfig, LayerRotations, PositionStrategy, Rope
from lit_pi.positions.by_layer import is_by_kind
from lit_pi.ranges import Range

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
    record: dict[str, Any] = {"rope": rope.describe(), "position": position.describe()}
    if not said:
        try:
            config.rope_parameters = _rope_parameters(config, position, rope)
        except UserError as refusal:
            record["refusal"] = str(refusal)
            config.rope_parameters = _rope_parameters(config, Extrapolate(), rope)
    setattr(config, KEY, record)
    # Transformers' `dynamic` type reads the original context there.
    dynamic = "dynamic" in rope_types(config.rope_parameters).values()
    config.max_position_embeddings = rope.original_context if dynamic else context
    return config


def _rope_parameters(config: PreTrainedConfig, position: PositionStrategy, rope: Rope) -> dict[str, Any]:
    """The `rope_parameters` of a strategy, by kind of layer where the config has them so.

    Raises:
        UserError: transformers cannot express the strategy, or does not read it in models of this kind.
    """
    before = config.rope_parameters
    if is_by_kind(before):
        present = {kind for kind, parameters in before.items() if parameters is not None} & {*layer_kinds(config)}
        return before | {
            kind: _of_kind(before[kind], _strategy_of(position, kind), rope.of_kind(kind)) for kind in sorted(present)
        }
    (rotation, *others) = LayerRotations(position, rope, layer_kinds(config)).distinct
    if others:
        raise UserError(
            f"transformers has one set of rope_parameters for all layers of a {config.model_type} model, and "
            f"{type(position).__name__} has several"
        )
    return _of_kind(before, *rotation, by_kind=False)


_ROPE_FIELDS = {
    *("rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings", "attention_factor"),
    *("beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate", "low_freq_factor", "high_freq_factor"),
    *("short_factor", "long_factor", "short_mscale", "long_mscale", "alpha"),
}
"""Fields of `rope_parameters` that say how to stretch; others say what layers are like, whatever rotates them."""


def _strategy_of(position: PositionStrategy, kind: str) -> PositionStrategy:
    """The strategy of a kind of layer.

    Raises:
        UserError: it depends on more than the kind.
    """
    if isinstance(position, ByLayer):
        position.by_kind()
    return position.of_layer(0, kind)


def _of_kind(before: dict[str, Any], position: PositionStrategy, rope: Rope, by_kind: bool = True) -> dict[str, Any]:
    """Parameters of a strategy, with what those before say of something else."""
    parameters = position.rope_parameters(rope)
    if by_kind and not parameters.get("truncate", True):  # which transformers does not read there
        parameters = PositionStrategy.rope_parameters(position, rope)
    kept = {name: value for name, value in before.items() if name not in _ROPE_FIELDS}
    if "proportional" in (parameters["rope_type"], before.get("rope_type")):
        kept.pop("partial_rotary_factor", None)  # a share of the frequencies there
    if kept.keys() - {"partial_rotary_factor"}:
        kept["original_max_position_embeddings"] = rope.original_context  # what they count from
    return kept | parameters


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
    record = getattr(config, KEY, None) or {}
    if "refusal" in record:
        return {"rope_type": record["position"]["class"]}
    return written_rope_parameters(config)


def written_rope_parameters(config: PreTrainedConfig) -> dict[str, Any]:
    """The `rope_parameters` by which transformers rotates; of kinds of layers, those that there are."""
    parameters = config.rope_parameters or {}
    if is_by_kind(parameters):
        present = {kind: each for kind, each in parameters.items() if kind in layer_kinds(config)}
        return {kind: each if each is None else _completed(each, config, True) for kind, each in present.items()}
    return _completed(parameters, config, False)


def _completed(parameters: dict[str, Any], config: PreTrainedConfig, of_kind: bool) -> dict[str, Any]:
    """With what transformers takes from elsewhere in the config."""
    parameters = dict(parameters)
    original = parameters.get("original_max_position_embeddings")
    if parameters.get("rope_type") in ("yarn", "longrope") and parameters.get("factor") is None and original:
        parameters["factor"] = config.max_position_embeddings / original
    if of_kind:
        parameters.pop("truncate", None)  # transformers reads it where kinds of layers share one set only
    return parameters


def rope_of(config: PreTrainedConfig, original_context: int | None = None) -> Rope:
    """The rotary embedding of pre-training, as a config tells it.

    Args:
        config: the model's config.
        original_context: tokens of context of pre-training, where the config does not say.

    Raises:
        UserError: the config holds an extension that does not say what it extended, or has no rotary positions.
    """
    if record := getattr(config, KEY, None):
        try:
            rope = Rope.described(record["rope"])
            for number in (rope.head_dim, rope.rope_theta, rope.original_context):
                Range(0, above=True).check("the rope", number)
            return rope
        except (TypeError, LookupError, ValueError, AttributeError) as error:  # anyone may have written it
            raise UserError(
                f"the config of the {config.model_type} model has a record `{KEY}` that lit_pi did not write "
                f"({type(error).__name__}): remove it from config.json"
            ) from error
    parameters = getattr(config, "rope_parameters", None) or {}
    if not is_by_kind(parameters):
        return _rope(config, parameters, original_context)
    present = layer_kinds(config)
    kinds = {kind: each for kind, each in parameters.items() if each is not None and kind in present}
    # Pre-training had one context, which kinds that were not extended do not tell.
    told = [each.get("original_max_position_embeddings") for each in kinds.values()]
    original_context = original_context or next(filter(None, told), None)
    ropes = {kind: _rope(config, each, original_context) for kind, each in kinds.items()}
    if not ropes:
        raise _without_rope(config)
    main = ropes.get(FULL_ATTENTION, next(iter(ropes.values())))
    differ = any(rope != main for rope in ropes.values())
    return main._replace(kinds=tuple(ropes.items())) if differ else main


def _rope(config: PreTrainedConfig, parameters: dict[str, Any], original_context: int | None) -> Rope:
    if "rope_theta" not in parameters:
        raise _without_rope(config)
    kind = parameters.get("rope_type", "default")
    if original_context is None and kind != "dynamic":  # which stretches from max_position_embeddings
        original_context = parameters.get("original_max_position_embeddings")
    if original_context is None:
        if kind == "linear":  # the other types leave max_position_embeddings as pre-training had it
            raise UserError(
                f"the model's config already extends its context ({parameters}) and does not say from how many "
                "tokens: give `original_context`, the context of pre-training"
            )
        original_context = config.max_position_embeddings
    if not isinstance(original_context, int) or original_context < 1:
        raise UserError(
            f"the context of the {config.model_type} model is {original_context} tokens: give its config a positive "
            "whole number of max_position_embeddings"
        )
    head_dim = head_dim_of(config)
    # The `proportional` type turns a part of the frequencies, the others a part of the dimensions.
    part = 1.0 if kind == "proportional" else parameters.get("partial_rotary_factor", 1.0)
    return Rope(int(head_dim * part), float(parameters["rope_theta"]), original_context)


def head_dim_of(config: PreTrainedConfig) -> int:
    """Dimensions of a query or key.

    Raises:
        UserError: they differ by layer.
    """
    try:
        return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    except Exception as error:  # transformers has no one class for it
        raise UserError(
            f"heads of this {config.model_type} model differ in size by layer (head_dim): lit_pi cannot extend it"
        ) from error


def _without_rope(config: PreTrainedConfig) -> UserError:
    return UserError(
        f"the config of the {config.model_type} model has no rope_parameters: lit_pi extends models whose positions "
        "are rotary"
    )


def rope_types(rope_parameters: Mapping[str, Any]) -> dict[str, str]:
    """The `rope_type` of each kind of layer that has one, by its name; of all layers, under `""`, where they share."""
    if not is_by_kind(rope_parameters):
        return {"": rope_parameters["rope_type"]}
    return {kind: parameters["rope_type"] for kind, parameters in rope_parameters.items() if parameters is not None}


def layer_kinds(config: PreTrainedConfig) -> list[str]:
    """The kind of each layer: `layer_types` of the config, or what its window says for all."""
    layers = config.num_hidden_layers
    kinds = getattr(config, "layer_types", None)
    if kinds and len(kinds) >= layers:
        return list(kinds[:layers])
    return [FULL_ATTENTION if getattr(config, "sliding_window", None) is None else "sliding_attention"] * layers


def rotated_kind(config: PreTrainedConfig) -> str:
    """The kind of the first layer that rotates."""
    kinds, parameters = layer_kinds(config), config.rope_parameters
    return next((kind for kind in kinds if not is_by_kind(parameters) or parameters.get(kind) is not None), kinds[0])
