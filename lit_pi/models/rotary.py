"""The rotary embedding that takes its angles from a position strategy."""

from contextlib import nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_pi.errors import UserError
from lit_pi.positions import PositionStrategy, Rope


class RotaryEmbedding(nn.Module):
    """Cosine and sine of integer positions, in transformers' half-split layout.

    Owns no buffer: a buffer would be cast to bf16 by `bf16-true`, lost by meta initialisation, or left behind by
    a checkpoint. Angles are float32 until cosine and sine are taken, whatever the model's precision.

    Attributes:
        context_length: tokens of the sequence at hand, for strategies whose angles depend on it. The model sets it
            before each forward.
        position_ids: positions of the forward at hand, which an attention rule maps.
        key_position_ids: positions of all keys, where a cache holds those of earlier forwards too.
    """

    def __init__(self, position: PositionStrategy, rope: Rope) -> None:
        super().__init__()
        self.position = position
        self.rope = rope
        self.context_length = rope.original_context
        self.position_ids: Int[Tensor, "rows seq"] | None = None
        self.key_position_ids: Int[Tensor, "rows keys"] | None = None

    @torch.no_grad()
    def forward(
        self, hidden_states: Float[Tensor, "batch seq hidden"], position_ids: Int[Tensor, "rows seq"]
    ) -> tuple[Float[Tensor, "rows seq head_dim"], Float[Tensor, "rows seq head_dim"]]:
        """Cosine and sine in the dtype of `hidden_states`; none under an attention rule, which rotates itself."""
        if self.position.attention_rule is not None:
            self.position_ids = position_ids
            position_ids = torch.zeros_like(position_ids)
        return self.phases(position_ids, hidden_states.dtype)

    def phases(
        self, position_ids: Int[Tensor, "rows seq"], dtype: torch.dtype
    ) -> tuple[Float[Tensor, "rows seq head_dim"], Float[Tensor, "rows seq head_dim"]]:
        """Cosine and sine of positions."""
        device = position_ids.device.type
        with torch.autocast(device, enabled=False) if device != "meta" else nullcontext():
            angles = self.position.angles(position_ids, self.rope, self.context_length)
            scaling = self.position.attention_scaling(self.rope, self.context_length)
            both_halves = torch.cat((angles, angles), dim=-1)
            cos, sin = both_halves.cos() * scaling, both_halves.sin() * scaling
        return cos.to(dtype), sin.to(dtype)

    def extra_repr(self) -> str:
        """The strategy and what it starts from, as `print(model)` shows them."""
        return f"{self.position.describe()}, {self.rope}"


def install_rotary(llm: PreTrainedModel, rotary: RotaryEmbedding) -> None:
    """Replace the model's own rotary embedding.

    Raises:
        UserError: the model does not have exactly one, so it is not a RoPE model this adapter understands.
    """
    owners = [module for module in llm.modules() if "rotary_emb" in dict(module.named_children())]
    if len(owners) != 1:
        raise UserError(
            f"{type(llm).__name__} has {len(owners)} rotary embeddings where one is needed: lit_pi extends "
            "decoders of the LLaMA family (Llama, Mistral, Qwen2, Qwen3)"
        )
    owners[0].rotary_emb = rotary
