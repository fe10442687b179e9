"""By what each layer of a model rotates."""

from collections.abc import Sequence
from typing import NamedTuple

from lit_pi.positions.base import PositionStrategy, prefix_agrees
from lit_pi.positions.rope import Rope

FULL_ATTENTION = "full_attention"
"""The kind of layers that see all tokens before, as transformers calls it in `layer_types`."""


class Rotation(NamedTuple):
    """A strategy and the rotary embedding that it starts from.

    Attributes:
        position: a strategy for one layer: never `ByLayer`.
        rope: the embedding of the layer's kind.
    """

    position: PositionStrategy
    rope: Rope


class LayerRotations:
    """The rotations of a model's layers: one for all of them, as a rule.

    Args:
        position: the strategy of the model.
        rope: what the model was pre-trained with.
        kinds: the kind of each layer, in order.

    Raises:
        UserError: the strategy does not fit these layers.

    Attributes:
        distinct: the rotations, each once, in the order in which layers first have them.
        of_layer: for each layer, which of them it has.
    """

    def __init__(self, position: PositionStrategy, rope: Rope, kinds: Sequence[str] = (FULL_ATTENTION,)) -> None:
        self.position = position
        self.rope = rope
        self.kinds = tuple(kinds)
        self.distinct: list[Rotation] = []
        self.of_layer: list[int] = []
        position.check_layers(kinds)
        found: list[tuple[object, Rope]] = []
        for place, kind in enumerate(kinds):
            rotation = Rotation(position.of_layer(place, kind), rope.of_kind(kind))
            same = (rotation.position.describe(), rotation.rope)
            if same not in found:
                found.append(same)
                self.distinct.append(rotation)
            self.of_layer.append(found.index(same))

    def prefix_agrees(self, context_lengths: Sequence[int]) -> bool:
        """Whether, in every layer, phases of a shorter context length are a prefix of the longest one's."""
        return all(prefix_agrees(position, rope, context_lengths) for position, rope in self.distinct)

    @property
    def target_context(self) -> int:
        """Tokens of context that the layers which reach furthest are made for."""
        return max(position.target_context_of(rope) for position, rope in self.distinct)
