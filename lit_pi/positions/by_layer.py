"""Another strategy for each kind of layer, or for layers by their place."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float32
from torch import Tensor

from lit_pi.errors import UserError
from lit_pi.positions.base import PositionStrategy
from lit_pi.positions.rope import Rope

OTHERS = "others"
"""Name of the layers that no other name means."""

_EVERY = re.compile(r"every ([1-9]\d*)")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


class ByLayer(PositionStrategy):
    """A strategy for each kind of layer, or for layers by their place: YaRN where attention is full, say.

    A layer has the first strategy whose name means it. Names are:

    - a kind of the model's config (`layer_types`), as `full_attention` or `sliding_attention`;
    - `every 4`: the fourth layer, the eighth, and so on, as SmolLM3 counts its layers without positions;
    - `0-3` or `7`: layers by their number, from 0 on, both ends included;
    - `others`: all that remain, so it comes last.

    Args:
        layers: strategies by such names; every layer of the model must be meant by one.

    Raises:
        UserError: there is none, one is no strategy, or one is `ByLayer` itself or has an attention rule, which is one
            for all layers.
    """

    def __init__(self, layers: dict[str, PositionStrategy]) -> None:
        if not layers:
            raise UserError("ByLayer got no layers: name strategies, as {full_attention: ..., others: ...}")
        for name, strategy in layers.items():
            if not isinstance(strategy, PositionStrategy):
                raise UserError(f"ByLayer got {strategy!r} for {name}, which is no strategy: give one, as YaRN(4)")
            if isinstance(strategy, ByLayer) or strategy.attention_rule is not None:
                raise UserError(
                    f"ByLayer got {type(strategy).__name__} for {name}, which is for all layers or none: name another "
                    "strategy there"
                )
        self.layers = {str(name): strategy for name, strategy in layers.items()}

    @property
    def prefix_consistent(self) -> bool:
        """Whether every strategy is."""
        return all(strategy.prefix_consistent for strategy in self.layers.values())

    def inv_freq(self, rope: Rope, context_length: int) -> Float32[Tensor, " half"]:
        """Nothing for all layers: `of_layer` gives the strategy of one."""
        raise UserError("ByLayer has no frequencies of its own: each kind of layer has those of its strategy")

    def of_layer(self, place: int, kind: str) -> PositionStrategy:
        """The strategy of a layer.

        Raises:
            UserError: no name means it.
        """
        for name, strategy in self.layers.items():
            if _means(name, place, kind):
                return strategy
        raise UserError(
            f"ByLayer has no strategy for layer {place} of the model, whose kind is {kind}: it names "
            f"{', '.join(self.layers)}; name that kind, or `{OTHERS}`"
        )

    def check_layers(self, kinds: Sequence[str]) -> None:
        """Check that every name means layers of a model, and that none of them is in vain.

        Args:
            kinds: the kind of each layer, in order.

        Raises:
            UserError: a name means no layer, or only such as names before it mean.
        """
        left, model = {*range(len(kinds))}, f"{len(kinds)} layers, of kind {', '.join(dict.fromkeys(kinds))}"
        for number, name in enumerate(self.layers):
            meant = {place for place, kind in enumerate(kinds) if _means(name, place, kind)}
            numbers = _RANGE.fullmatch(name)
            if not meant or (numbers and int(numbers[2] or numbers[1]) >= len(kinds)):
                raise UserError(
                    f"ByLayer names {name!r}, which means {'more than there are' if meant else 'none'} of the model's "
                    f"{model}: name a kind, `every 4`, layers from 0 to {len(kinds) - 1} (`0-1`), or `{OTHERS}`"
                )
            # All others may be none.
            if not meant & left and (name != OTHERS or number < len(self.layers) - 1):
                raise UserError(
                    f"ByLayer names {name!r}, whose layers all have the strategy of a name before it, in a model of "
                    f"{model}: put it first, or leave it out"
                )
            left -= meant

    def for_model(self, rope_parameters: Mapping[str, Any], rope: Rope) -> PositionStrategy:
        """The same with the strategies in effect for a model."""
        nested = is_by_kind(rope_parameters)
        found = {}
        for name, strategy in self.layers.items():
            if nested and name not in rope_parameters and strategy.for_model({}, rope) is not strategy:
                raise UserError(
                    f"ByLayer has {type(strategy).__name__} for {name}, and the model's config says other positions "
                    f"for each kind: name one of {', '.join(rope_parameters)}"
                )
            parameters = (rope_parameters.get(name) or {}) if nested else rope_parameters
            found[name] = strategy.for_model(parameters, rope.of_kind(name))
        return ByLayer(found)

    def by_kind(self) -> dict[str, PositionStrategy]:
        """The strategies, where each is one of a kind of layer.

        Raises:
            UserError: a name says places.
        """
        for name in self.layers:
            if _EVERY.fullmatch(name) or _RANGE.fullmatch(name):
                raise UserError(f"transformers has rope_parameters by kind of layer, and ByLayer has some for {name!r}")
        return self.layers

    def rope_parameters(self, rope: Rope) -> dict[str, Any]:
        """Transformers' `rope_parameters` by kind of layer.

        Raises:
            UserError: a name says places, or transformers cannot express a strategy.
        """
        return {name: strategy.rope_parameters(rope.of_kind(name)) for name, strategy in self.by_kind().items()}

    def target_context_of(self, rope: Rope) -> int:
        """Tokens of context that the furthest strategy is made for."""
        return max(strategy.target_context_of(rope.of_kind(name)) for name, strategy in self.layers.items())

    def describe(self) -> dict[str, Any]:
        """Class name, and the strategies by their names."""
        return {
            "class": type(self).__name__,
            "layers": {name: strategy.describe() for name, strategy in self.layers.items()},
        }


def is_by_kind(rope_parameters: Mapping[str, Any]) -> bool:
    """Whether `rope_parameters` are those of each kind of layer, by name."""
    values = list(rope_parameters.values())
    return any(isinstance(value, Mapping) for value in values) or (bool(values) and values.count(None) == len(values))


def of_kinds(rope_parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The `rope_parameters` of each kind of layer, by name; none where all layers share them.

    Fields beside them, of no kind, are left out, as transformers leaves them unread.
    """
    return {
        name: value
        for name, value in rope_parameters.items()
        if is_by_kind(rope_parameters) and (value is None or isinstance(value, Mapping))
    }


def _means(name: str, place: int, kind: str) -> bool:
    if name in (kind, OTHERS):
        return True
    if every := _EVERY.fullmatch(name):
        return (place + 1) % int(every[1]) == 0
    if numbers := _RANGE.fullmatch(name):
        return int(numbers[1]) <= place <= int(numbers[2] or numbers[1])
    return False
