"""A Hugging Face causal language model whose positions come from a strategy."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.attention.flex_attention import BlockMask
from transformers import PreTrainedModel

from lit_pi.models.attention.documents import blocks_are_fastest, document_mask
from lit_pi.models.attention.rules import install_rule
from lit_pi.models.attention.sequence_split import SequenceSplit, has_ring
from lit_pi.models.layers.layer_forward import LayerForward
from lit_pi.models.layers.linear_cross_entropy import linear_cross_entropy, output_weight
from lit_pi.models.past import Past
from lit_pi.models.rotary import RotaryEmbedding, install_rotary
from lit_pi.models.sources.provenance import rope_parameters_of
from lit_pi.positions import PositionStrategy, Rope


class Scores(NamedTuple):
    """Scores that a model gives to targets.

    Attributes:
        token_nll: negative log-likelihoods in nats, 0 where a target is ignored.
        token_rank: tokens that are more likely (strictly larger logits): 0 for the model's first choice, and where a
            target is ignored.
    """

    token_nll: Float[Tensor, "batch scored"]
    token_rank: Int[Tensor, "batch scored"]


class LanguageModel(nn.Module):
    """Scores tokens: the root module that is sharded, so everything happens inside its forward.

    Args:
        llm: a causal language model of the LLaMA family; its rotary embedding is replaced.
        position: the strategy that gives the rotary angles.
        rope: the rotary embedding that the model was pre-trained with.

    Attributes:
        layer_forwards: how each decoder layer runs, in order.
        prunes: let the last layer leave out positions that are not scored, where nothing learns.
        sequence_mesh: ranks that share every sequence and each compute a part of it, or None.

    Raises:
        UserError: the model's positions or logits are not made as in the LLaMA family.
    """

    prunes = True

    def __init__(self, llm: PreTrainedModel, position: PositionStrategy, rope: Rope) -> None:
        super().__init__()
        output_weight(llm)
        self.rope = rope
        self.sequence_mesh: DeviceMesh | None = None
        position = position.for_model(rope_parameters_of(llm.config), rope)
        self.rotary = RotaryEmbedding(position, rope)
        install_rotary(llm, self.rotary)
        if position.attention_rule is not None:
            install_rule(llm, self.rotary)
        self.llm = llm
        self.layer_forwards = [LayerForward(layer, self.rotary) for layer in self.decoder_layers]

    @property
    def position(self) -> PositionStrategy:
        """The strategy in effect."""
        return self.rotary.position

    @property
    def decoder_layers(self) -> nn.ModuleList:
        """The transformer layers, in order."""
        layers = self.llm.base_model.get_submodule("layers")
        assert isinstance(layers, nn.ModuleList)
        return layers

    def forward(
        self,
        input_ids: Int[Tensor, "batch seq"],
        targets: Int[Tensor, "batch scored"],
        *,
        scored: Int[Tensor, " scored"] | None = None,
        position_ids: Int[Tensor, "batch seq"] | None = None,
        document_ids: Int[Tensor, "batch seq"] | None = None,
        context_length: int | None = None,
        ranked: bool = False,
    ) -> "Float[Tensor, 'batch scored'] | Scores":
        """Negative log-likelihood of each target in nats, float32 or wider; 0 where the target is ignored.

        Args:
            input_ids: token ids.
            targets: the token after each scored position, or -100 (torch's `ignore_index`).
            scored: positions to score, ascending; all by default.
            position_ids: place of each token, in tokens; 0, 1, 2, ... by default.
            document_ids: tokens attend to equal ids only; each row is one document by default.
            context_length: tokens of context that the positions stand for; the row's own by default.
            ranked: give the targets' ranks too.
        """
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        self.rotary.context_length = context_length or input_ids.shape[1]
        split = None if self.sequence_mesh is None else SequenceSplit(self.sequence_mesh, position_ids, scored)
        mask = self._mask(input_ids, document_ids, split)
        if split is not None:
            input_ids, position_ids = split.own(input_ids), split.own(position_ids)
            targets, scored = split.own_targets(targets), split.own_scored
        prunes = self.prunes and split is None and not torch.is_grad_enabled()
        self.layer_forwards[-1].scored = scored if prunes else None
        hidden_states = self.llm.base_model(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=mask,
            use_cache=False,
            sequence_split=split,
        ).last_hidden_state
        self.layer_forwards[-1].scored = None
        if scored is not None and hidden_states.shape[1] == input_ids.shape[1]:
            hidden_states = hidden_states[:, scored]
        token_nll, token_rank = linear_cross_entropy(hidden_states, output_weight(self.llm), targets, ranked)
        if split is not None:
            token_nll = split.all_scores(token_nll)
            token_rank = None if token_rank is None else split.all_scores(token_rank)
        return token_nll if token_rank is None else Scores(token_nll, token_rank)

    def isolates_by_blocks(self, device: torch.device) -> bool:
        """Whether FlexAttention isolates packed documents there; else a dense mask does, as attention rules need it."""
        if self.position.attention_rule is not None:
            return False
        dropout = getattr(self.llm.config, "attention_dropout", 0.0)
        return blocks_are_fastest(device, self.llm.dtype, self.rope.head_dim, dropout)

    def attends_in_ring(self, device: torch.device) -> bool:
        """Whether ranks that split sequences pass keys and values around, where no documents are packed."""
        split = self.sequence_mesh is not None and self.position.attention_rule is None
        return split and has_ring(device, self.llm.dtype)

    def _mask(
        self, input_ids: Tensor, document_ids: Int[Tensor, "batch seq"] | None, split: SequenceSplit | None
    ) -> Tensor | BlockMask | None:
        device = input_ids.device
        if document_ids is None:
            if split is None or self.position.attention_rule is not None or self.attends_in_ring(device):
                return None
            document_ids = torch.zeros_like(input_ids)
        blocks = self.isolates_by_blocks(device)
        if split is None:
            return document_mask(document_ids, blocks)
        return document_mask(split.padded(document_ids, -1), blocks, split.places)

    def read(
        self, input_ids: Int[Tensor, "batch seq"], past: Past, scored: Int[Tensor, " scored"] | None = None
    ) -> Float[Tensor, "batch scored vocabulary"]:
        """Logits, float32 or wider, of tokens that follow what was read before; the past grows by them.

        Args:
            input_ids: token ids.
            past: the tokens read before, and their keys and values.
            scored: those of the tokens to compute logits for, ascending; all by default.
        """
        places = slice(past.read, past.read + input_ids.shape[1])
        self.rotary.context_length = past.context_length
        self.rotary.key_position_ids = past.position_ids[:, : places.stop]
        logits = self.llm(
            input_ids=input_ids,
            position_ids=past.position_ids[:, places],
            attention_mask=past.mask(places),
            past_key_values=past.cache,
            use_cache=True,
            logits_to_keep=0 if scored is None else scored,
        ).logits
        self.rotary.key_position_ids = None
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
