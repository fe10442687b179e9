"""The rotary embedding that takes its angles from a position strategy."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from lit_pi.errors import UserError
from lit_pi.models.sources.provenance import rotated_kind
from lit_pi.positions import FULL_ATTENTION, LayerRotations, PositionStrategy, Rope, Rotation

Layout = Literal["halves", "pairs", "once", "complex"]
"""How a model wants its angles: twice, one after the other (LLaMA) or side by side (Cohere); once; or as numbers
cos + i sin (Llama 4)."""

Phases = tuple[Float[Tensor, "rows seq rotated"], Float[Tensor, "rows seq rotated"]] | Shaped[Tensor, "rows seq half"]


class RotaryEmbedding(nn.Module):
    """Cosine and sine of integer positions, in the layout that the model wants.

    Owns no buffer: a buffer would be cast to bf16 by `bf16-true`, lost by meta initialisation, or left behind by
    a checkpoint. Angles are float32 until cosine and sine are taken, whatever the model's precision is.

    Args:
        position: the strategy in effect.
        rope: what the model was pre-trained with.
        kinds: the kind of each layer, in order.
        layout: how the model wants its angles.

    Attributes:
        rotations: by what each layer rotates.
        context_length: tokens of the sequence at hand, for strategies whose angles depend on it. The model sets it
            before each forward.
        position_ids: positions of the forward at hand, which an attention rule maps.
        key_position_ids: positions of all keys, where a cache holds those of earlier forwards too.
        give: gives a layer its phases, by its number, where layers rotate by several strategies; None leaves them those
            of the model.
    """

    def __init__(
        self,
        position: PositionStrategy,
        rope: Rope,
        kinds: Sequence[str] = (FULL_ATTENTION,),
        layout: Layout = "halves",
    ) -> None:
        super().__init__()
        self.rotations = LayerRotations(position, rope, kinds)
        self.layout = layout
        self.context_length = rope.original_context
        self.position_ids: Int[Tensor, "rows seq"] | None = None
        self.key_position_ids: Int[Tensor, "rows keys"] | None = None
        self.give: Callable[[int], Phases] | None = self.phases_of_layer
        self._at_hand: list[Phases] = []

    @property
    def position(self) -> PositionStrategy:
        """The strategy in effect."""
        return self.rotations.position

    @property
    def rope(self) -> Rope:
        """The rotary embedding of pre-training."""
        return self.rotations.rope

    @torch.no_grad()
    def forward(
        self,
        hidden_states: Float[Tensor, "batch seq hidden"],
        position_ids: Int[Tensor, "rows seq"],
        layer_type: str | None = None,
    ) -> Phases:
        """Cosine and sine in the dtype of `hidden_states`; none under an attention rule, which rotates itself.

        Where layers rotate by several strategies, `phases_of_layer` gives each its own.
        """
        if self.position.attention_rule is not None:
            self.position_ids = position_ids
            position_ids = torch.zeros_like(position_ids)
        dtype = hidden_states.dtype
        self._at_hand = [self.phases(position_ids, dtype, rotation) for rotation in self.rotations.distinct]
        return self._at_hand[0]

    @property
    def asked(self) -> bool:
        """Whether the model has asked for phases."""
        return bool(self._at_hand)

    def phases_of_layer(self, layer: int) -> Phases:
        """Those of a layer, for the positions of the forward at hand."""
        return self._at_hand[self.rotations.of_layer[layer]]

    def phases(
        self, position_ids: Int[Tensor, "rows seq"], dtype: torch.dtype, rotation: Rotation | None = None
    ) -> Phases:
        """Cosine and sine of positions.

        Args:
            position_ids: the positions, in tokens.
            dtype: dtype of cosine and sine; numbers cos + i sin stay complex64, as transformers has them.
            rotation: by what to rotate; by default what the first layer rotates by.
        """
        position, rope = rotation or self.rotations.distinct[0]
        device = position_ids.device.type
        with torch.autocast(device, enabled=False) if device != "meta" else nullcontext():
            angles = position.angles(position_ids, rope, self.context_length)
            scaling = position.attention_scaling(rope, self.context_length)
            return in_layout(angles, scaling, self.layout, dtype)

    def extra_repr(self) -> str:
        """The strategy and what it starts from, as `print(model)` shows them."""
        return f"{self.position.describe()}, {self.rope}"


def in_layout(angles: Float[Tensor, "rows seq half"], scaling: float, layout: Layout, dtype: torch.dtype) -> Phases:
    """Cosine and sine of angles, as a model wants them."""
    if layout == "complex":
        return torch.polar(torch.full_like(angles, scaling), angles)
    if layout == "halves":
        angles = torch.cat((angles, angles), dim=-1)
    elif layout == "pairs":
        angles = angles.repeat_interleave(2, dim=-1)
    return (angles.cos() * scaling).to(dtype), (angles.sin() * scaling).to(dtype)


def plain_phases(
    phases: Phases, layout: Layout
) -> tuple[Float[Tensor, "rows seq half"], Float[Tensor, "rows seq half"]]:
    """Cosine and sine of each angle once, of what `in_layout` gives."""
    if isinstance(phases, Tensor):
        return phases.real, phases.imag
    if layout == "once":
        return phases
    cos, sin = phases
    if layout == "pairs":
        return cos[..., ::2], sin[..., ::2]
    half = cos.shape[-1] // 2
    return cos[..., :half], sin[..., :half]


def stock_rotary(llm: PreTrainedModel) -> type[nn.Module]:
    """The class of the one rotary embedding that transformers makes for a model.

    Raises:
        UserError: the model does not have exactly one.
    """
    found = [type(module) for module in _owners(llm).values()]
    return found[0]


def layout_of(stock: type[nn.Module], config: PreTrainedConfig) -> Layout:
    """The layout in which transformers' own rotary embedding gives its angles, found by asking it.

    Raises:
        UserError: it is none that lit_pi knows.
    """
    with torch.device("cpu"):
        places = torch.arange(1, 4)[None]
        rotary: Any = stock(config)
        phases = ask_stock(rotary, places, rotated_kind(config))
    if isinstance(phases, Tensor):
        if phases.is_complex():
            return "complex"
    elif isinstance(phases, tuple) and len(phases) == 2 and phases[0].shape[:2] == places.shape:
        cos = phases[0]
        first, second = cos.chunk(2, dim=-1) if cos.shape[-1] % 2 == 0 else (cos, cos[:0])
        if torch.equal(first, second):
            return "halves"
        return "pairs" if torch.equal(cos[..., ::2], cos[..., 1::2]) else "once"
    raise UserError(f"{stock.__name__} gives its angles in a form that lit_pi does not know: the model is not extended")


def measured(rope: Rope, stock: type[nn.Module], config: PreTrainedConfig, layout: Layout) -> Rope:
    """The rope with the rotated dimensions that transformers' own embedding has, which a config may tell otherwise."""
    with torch.device("cpu"):
        places = torch.arange(1)[None]
        rotary: Any = stock(config)

        def half(kind: str) -> int:
            return plain_phases(ask_stock(rotary, places, kind), layout)[0].shape[-1]

        kinds = tuple((kind, each._replace(head_dim=2 * half(kind))) for kind, each in rope.kinds)
        main = 2 * half(rotated_kind(config)) if not kinds else dict(kinds).get(FULL_ATTENTION, kinds[0][1]).head_dim
    return rope._replace(head_dim=main, kinds=kinds)


def ask_stock(rotary: Callable[..., Any], position_ids: Int[Tensor, "rows seq"], kind: str) -> Any:
    """Phases of transformers' own rotary embedding, in float32, for a kind of layer where it has several."""
    of_kind = {} if not getattr(rotary, "layer_types", None) else {"layer_type": kind}
    return rotary(torch.empty(1, device=position_ids.device), position_ids, **of_kind)


def install_rotary(llm: PreTrainedModel, rotary: nn.Module) -> None:
    """Replace the model's own rotary embedding.

    Raises:
        UserError: the model does not have exactly one, so it is not a RoPE model this adapter understands.
    """
    for owner in _owners(llm):
        owner.rotary_emb = rotary


def install_by_layer(layers: Iterable[nn.Module], rotary: RotaryEmbedding) -> None:
    """Let each layer get its own phases, where layers rotate by several strategies, and none of another embedding's.

    Raises:
        UserError: the layers are not given phases.
    """
    for number, layer in enumerate(layers):
        for key, hook in list(layer._forward_pre_hooks.items()):
            if isinstance(hook, partial) and hook.func is _give_own:
                del layer._forward_pre_hooks[key], layer._forward_pre_hooks_with_kwargs[key]
        if len(rotary.rotations.distinct) > 1:
            layer.register_forward_pre_hook(partial(_give_own, rotary, number), with_kwargs=True)


def _give_own(
    rotary: RotaryEmbedding, number: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if rotary.give is None:
        return args, kwargs
    if "position_embeddings" not in kwargs:
        raise UserError(f"{type(layer).__name__} is given no phases: ByLayer cannot give each layer its own")
    return args, kwargs | {"position_embeddings": rotary.give(number)}


def _owners(llm: PreTrainedModel) -> dict[nn.Module, nn.Module]:
    """The module that has the model's rotary embedding, and that embedding."""
    found = {
        module: child for module in llm.modules() for name, child in module.named_children() if name == "rotary_emb"
    }
    if len(found) != 1:
        raise UserError(
            f"{type(llm).__name__} has {len(found)} rotary embeddings where one is needed: lit_pi extends "
            "decoders whose layers share one, as those of the LLaMA family do"
        )
    return found
