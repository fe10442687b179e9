"""The positions that a config tells of: those of pre-training, and those in effect."""

import copy
import json
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from lit_pi.errors import UserError
from lit_pi.models.sources.fitted import silent
from lit_pi.positions import FULL_ATTENTION, ByLayer, Extrapolate, FromConfig, LayerRotations, PositionStrategy, Rope
from lit_pi.positions.by_layer import is_by_kind, of_kinds
from lit_pi.ranges import MOST_TOKENS, Range

KEY = "lit_pi"
"""Entry that lit_pi adds to a config: `rope` of pre-training, `position` in effect, and `refusal` (see below)."""

ORIGINAL = "original_max_position_embeddings"
"""Field of `rope_parameters`, and of a few configs, whose own transformers puts in the place of the other."""


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
    record: dict[str, Any] = {"rope": rope.describe(), "position": position.describe()}
    try:
        found = _with(config, None, context, rope) if said else _expressed(config, position, rope, context)
    except UserError as refusal:
        record["refusal"] = str(refusal)
        found = _with(config, _rope_parameters(config, Extrapolate(), rope), context, rope)
    setattr(found, KEY, record)
    return found


def _expressed(config: PreTrainedConfig, position: PositionStrategy, rope: Rope, context: int) -> PreTrainedConfig:
    """A copy of a config that asks for a strategy: by a type of transformers' own, else by factors.

    Raises:
        UserError: transformers cannot express the strategy, or does not read it in models of this kind.
    """
    found = _with(config, _rope_parameters(config, position, rope), context, rope)
    if (reason := _unread(found)) is None:
        return found
    refusal = UserError(
        f"{type(config).__name__} of transformers does not take the rope_parameters of {type(position).__name__} "
        f"({reason})"
    )
    try:
        found = _with(config, _rope_parameters(config, position, rope, by_factors=True), context, rope)
    except UserError as error:
        raise refusal from error
    if _unread(found) is not None:
        raise refusal
    return found


def _with(
    config: PreTrainedConfig, rope_parameters: dict[str, Any] | None, context: int, rope: Rope
) -> PreTrainedConfig:
    """A copy of a config for a context, with other `rope_parameters` if they are given."""
    config = copy.deepcopy(config)
    if rope_parameters is not None:
        config.rope_parameters = rope_parameters
        if hasattr(config, ORIGINAL):
            setattr(config, ORIGINAL, rope.original_context)
    # Transformers' `dynamic` type reads the original context there.
    dynamic = "dynamic" in rope_types(config.rope_parameters).values()
    config.max_position_embeddings = rope.original_context if dynamic else context
    return config


def _unread(config: PreTrainedConfig) -> str | None:
    """Why transformers makes other `rope_parameters` of a config once it is written; None where it keeps them."""
    fields = json.loads(config.to_json_string(use_diff=False))
    written = fields["rope_parameters"]
    try:
        with silent():
            read = type(config).from_dict(copy.deepcopy(fields)).rope_parameters
    except Exception as error:  # each class has checks of its own
        return " ".join(str(error).split()).split("Error: ")[-1]
    pairs = [(each, read[kind]) for kind, each in of_kinds(written).items()] or [(written, read)]
    changed = {name for ours, theirs in pairs if ours for name in ours if theirs.get(name) != ours[name]}
    return f"it changes {', '.join(sorted(changed))}" if changed else None


def _rope_parameters(
    config: PreTrainedConfig, position: PositionStrategy, rope: Rope, by_factors: bool = False
) -> dict[str, Any]:
    """The `rope_parameters` of a strategy, by kind of layer where the config has them so.

    Raises:
        UserError: transformers cannot express the strategy, or does not read it in models of this kind.
    """
    before = config.rope_parameters
    if is_by_kind(before):
        kinds = of_kinds(before)
        present = {kind for kind, parameters in kinds.items() if parameters is not None} & {*layer_kinds(config)}
        return kinds | {
            kind: _of_kind(kinds[kind], _strategy_of(position, kind), rope.of_kind(kind), by_factors)
            for kind in sorted(present)
        }
    (rotation, *others) = LayerRotations(position, rope, layer_kinds(config)).distinct
    if others:
        raise UserError(
            f"transformers has one set of rope_parameters for all layers of a {config.model_type} model, and "
            f"{type(position).__name__} has several"
        )
    return _of_kind(before, *rotation, by_factors, by_kind=False)


_ROPE_FIELDS = {
    *("rope_type", "type", "rope_theta", "factor", ORIGINAL, "attention_factor"),
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


def _of_kind(
    before: dict[str, Any], position: PositionStrategy, rope: Rope, by_factors: bool, by_kind: bool = True
) -> dict[str, Any]:
    """Parameters of a strategy, with what those before say of something else."""
    parameters = position.rope_parameters(rope)
    # `truncate` transformers does not read by kind.
    if by_factors or (by_kind and not parameters.get("truncate", True)):
        parameters = PositionStrategy.rope_parameters(position, rope)
    kept = {name: value for name, value in before.items() if name not in _ROPE_FIELDS}
    if "proportional" in (parameters["rope_type"], before.get("rope_type")):
        kept.pop("partial_rotary_factor", None)  # a share of the frequencies there
    if kept.keys() - {"partial_rotary_factor"}:
        kept[ORIGINAL] = rope.original_context  # what they count from
    return kept | parameters


def put_in_effect(said: PreTrainedConfig, config: PreTrainedConfig) -> None:
    """Let a config, which a model's modules share, say what `config_in_effect` made of a copy."""
    for name in (KEY, "rope_parameters", "max_position_embeddings", ORIGINAL):
        if hasattr(said, name):
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
        present = {kind: each for kind, each in of_kinds(parameters).items() if kind in layer_kinds(config)}
        return {kind: each if each is None else _completed(each, config, parameters) for kind, each in present.items()}
    return _completed(parameters, config, parameters)


def _completed(parameters: dict[str, Any], config: PreTrainedConfig, whole: dict[str, Any]) -> dict[str, Any]:
    """With what transformers takes from elsewhere in the config."""
    original = parameters.get(ORIGINAL)
    # It reads that one beside the kinds of layers, where they have sets of their own.
    completed = {**parameters, "truncate": whole.get("truncate", True)}
    if parameters.get("rope_type") in ("yarn", "longrope") and parameters.get("factor") is None and original:
        completed["factor"] = config.max_position_embeddings / original
    return completed


def rope_of(config: PreTrainedConfig, original_context: int | None = None) -> Rope:
    """The rotary embedding of pre-training, as a config tells it.

    Args:
        config: the model's config.
        original_context: tokens of context of pre-training, where the config does not say.

    Raises:
        UserError: the config has no rotary positions, or what it says of them is no number.
    """
    if record := getattr(config, KEY, None):
        try:
            rope = Rope.described(record["rope"])
            for number in (rope.head_dim, rope.rope_theta, rope.original_context):
                Range(0, above=True).check("the rope", number)
            return rope.told(original_context)
        except (TypeError, LookupError, ValueError, AttributeError) as error:  # anyone may have written it
            raise UserError(
                f"the config of the {config.model_type} model has a record `{KEY}` that lit_pi did not write "
                f"({type(error).__name__}): remove it from config.json"
            ) from error
    parameters = getattr(config, "rope_parameters", None) or {}
    if not is_by_kind(parameters):
        return _rope(config, parameters, [parameters], original_context)
    present = layer_kinds(config)
    kinds = {kind: each for kind, each in of_kinds(parameters).items() if each is not None and kind in present}
    # Pre-training had one context, which kinds that were not extended do not tell.
    ropes = {kind: _rope(config, each, [*kinds.values()], original_context) for kind, each in kinds.items()}
    if not ropes:
        raise _without_rope(config)
    main = ropes.get(FULL_ATTENTION, next(iter(ropes.values())))
    differ = any(rope != main for rope in ropes.values())
    return main._replace(kinds=tuple(ropes.items())) if differ else main


def _rope(
    config: PreTrainedConfig, parameters: dict[str, Any], kinds: list[dict[str, Any]], original_context: int | None
) -> Rope:
    """The embedding of layers with these parameters, in a model whose kinds of layers have those."""
    if "rope_theta" not in parameters:
        raise _without_rope(config)
    model = f"the {config.model_type} model {config.name_or_path}".rstrip()
    if not isinstance(theta := parameters["rope_theta"], int | float) or not theta > 0:
        raise UserError(f"the config of {model} has rope_theta {theta!r}: it must be a positive number")
    kind, assumed = parameters.get("rope_type", "default"), False
    if original_context is None and kind != "dynamic":  # which stretches from max_position_embeddings
        original_context, assumed = _original_context(config, kinds)
    if original_context is None:
        original_context = config.max_position_embeddings
    if not isinstance(original_context, int) or not 1 <= original_context <= MOST_TOKENS:
        raise UserError(
            f"the context of {model} is {original_context} tokens: give its config a positive "
            f"whole number of max_position_embeddings, at most {MOST_TOKENS:,}"
        )
    head_dim = head_dim_of(config)
    # The `proportional` type turns a part of the frequencies, the others a part of the dimensions.
    part = 1.0 if kind == "proportional" else parameters.get("partial_rotary_factor", 1.0)
    return Rope(int(head_dim * part), float(theta), original_context, assumed=assumed)


def _original_context(config: PreTrainedConfig, kinds: list[dict[str, Any]]) -> tuple[int | None, bool]:
    """Tokens of context of pre-training that the parameters of a model's kinds of layers tell, and whether only so.

    The `linear` type alone does not say: models that were released with it have in `max_position_embeddings` the
    context that they were stretched to (Gemma 3 a stretch beyond it) or that of before (Vicuna).
    """
    # The `dynamic` type does not count from there.
    if told := [each[ORIGINAL] for each in kinds if each.get(ORIGINAL) and each.get("rope_type") != "dynamic"]:
        return told[0], False
    factors = [float(each["factor"]) for each in kinds if each.get("rope_type") == "linear"]
    if not factors or max(factors) == 1:
        return None, False
    return max(round(config.max_position_embeddings / max(factors)), 1), True


def check_known(config: PreTrainedConfig, position: PositionStrategy, rope: Rope) -> None:
    """Check that a strategy other than the config's own does not start from a context that was only assumed.

    Raises:
        UserError: it does.
    """
    if rope.assumed and not isinstance(position, FromConfig) and not _says(config, position, rope):
        raise UserError(
            f"the model's config already extends its context ({config.rope_parameters}) and does not say from how many "
            "tokens: give `original_context`, the context of pre-training"
        )


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
    kinds = of_kinds(rope_parameters)
    return {kind: parameters["rope_type"] for kind, parameters in kinds.items() if parameters is not None}


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
