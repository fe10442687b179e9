"""A Hugging Face causal language model whose positions come from a strategy."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from transformers import PreTrainedModel

from lit_pi.errors import UserError
from lit_pi.models.attention.kernels import FLEX_ATTENTION, blocks_are_fastest, kernel_in_use
from lit_pi.models.attention.masks import Form, Tokens, masks_for
from lit_pi.models.attention.packages import check_package
from lit_pi.models.attention.rules import RULE_ATTENTION, caps_scores, check_rule, has_sinks, install_rule
from lit_pi.models.attention.sequence_split import SequenceSplit, has_ring
from lit_pi.models.layers.layer_forward import LayerForward
from lit_pi.models.layers.linear_cross_entropy import linear_cross_entropy
from lit_pi.models.layers.logits import logit_scale, logits_of
from lit_pi.models.layers.stock_losses import stock_losses
from lit_pi.models.past import Past
from lit_pi.models.rotary import RotaryEmbedding, install_by_layer, install_rotary, layout_of, measured, stock_rotary
from lit_pi.models.sources.provenance import (
    FULL_ATTENTION,
    check_known,
    head_dim_of,
    layer_kinds,
    rope_parameters_of,
)
from lit_pi.positions import LayerRotations, PositionStrategy, Rope


class Scores(NamedTuple):
    """Scores that a model gives to targets.

    Attributes:
        token_nll: negative log-likelihoods in nats, 0 where a target is ignored.
        token_rank: tokens that greedy decoding would take before: those of larger logits, and of as large ones those
            of smaller ids; 0 for the model's first choice, and where a target is ignored.
    """

    token_nll: Float[Tensor, "batch scored"]
    token_rank: Int[Tensor, "batch scored"]


class LanguageModel(nn.Module):
    """Scores tokens: the root module that is sharded, so everything happens inside its forward.

    Args:
        llm: a causal language model of transformers with rotary positions; its rotary embedding is replaced.
        position: the strategy that gives the rotary angles.
        rope: the rotary embedding that the model was pre-trained with.

    Attributes:
        layer_forwards: how each decoder layer runs, in order.
        prunes: let the last layer leave out positions that are not scored, where nothing learns.
        sequence_mesh: ranks that share every sequence and each compute a part of it, or None.
        package: name and version of the FlashAttention package whose kernels compute attention, or None.
        stock: class of the rotary embedding that transformers makes for the model.
        stock_runs: compute by transformers' code alone, for comparison.

    Raises:
        UserError: the model's positions or logits are not made in a way that lit_pi knows.
    """

    prunes = True
    package: str | None = None
    stock_runs = False

    def __init__(self, llm: PreTrainedModel, position: PositionStrategy, rope: Rope) -> None:
        super().__init__()
        self._logit_scale = logit_scale(llm)
        self.sequence_mesh: DeviceMesh | None = None
        self.stock = stock_rotary(llm)
        kinds = layer_kinds(llm.config)
        layout = layout_of(self.stock, llm.config)
        rope = measured(rope, self.stock, llm.config, layout)
        check_known(llm.config, position, rope)
        position = position.for_model(rope_parameters_of(llm.config), rope)
        self.rotary = RotaryEmbedding(position, rope, kinds, layout)
        install_rotary(llm, self.rotary)
        if position.attention_rule is not None:
            check_rule(llm, self.rotary)
            install_rule(llm, self.rotary)
        self.llm = llm
        install_by_layer(self.decoder_layers, self.rotary)
        self.layer_forwards = [LayerForward(layer, self.rotary) for layer in self.decoder_layers]
        # Attention changes scores on the way to the softmax, which only FlexAttention's blocks can among kernels.
        self._changes_scores = caps_scores(llm.config) or has_sinks(llm)

    @property
    def rotations(self) -> LayerRotations:
        """By what each layer rotates."""
        return self.rotary.rotations

    @property
    def position(self) -> PositionStrategy:
        """The strategy in effect."""
        return self.rotary.position

    @property
    def rope(self) -> Rope:
        """The rotary embedding that the model was pre-trained with."""
        return self.rotary.rope

    @property
    def head_dim(self) -> int:
        """Dimensions of a query or key, of which all or a part are rotated."""
        return head_dim_of(self.llm.config)

    @property
    def decoder_layers(self) -> nn.ModuleList:
        """The transformer layers, in order."""
        layers = decoder_of(self.llm).get_submodule("layers")
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
        if self.stock_runs:
            return stock_losses(self.llm, input_ids, targets, position_ids)
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        self.rotary.context_length = context_length or input_ids.shape[1]
        split = None if self.sequence_mesh is None else SequenceSplit(self.sequence_mesh, position_ids, scored)
        tokens = self._tokens(input_ids.device, document_ids, split)
        if split is not None:
            input_ids, position_ids = split.own(input_ids), split.own(position_ids)
            targets, scored = split.own_targets(targets), split.own_scored
        prunes = self.prunes and split is None and not torch.is_grad_enabled()
        self.layer_forwards[-1].scored = scored if prunes else None
        with masks_for(tokens):
            hidden_states = decoder_of(self.llm)(
                input_ids=input_ids,
                position_ids=position_ids,
                # Without one, transformers would guess documents from jumps in the positions.
                attention_mask=torch.ones_like(input_ids),
                use_cache=False,
                sequence_split=split,
            ).last_hidden_state
        self.layer_forwards[-1].scored = None
        if scored is not None and hidden_states.shape[1] == input_ids.shape[1]:
            hidden_states = hidden_states[:, scored]
        token_nll, token_rank = linear_cross_entropy(
            hidden_states, logits_of(self.llm, self._logit_scale), targets, ranked
        )
        if split is not None:
            token_nll = split.all_scores(token_nll)
            token_rank = None if token_rank is None else split.all_scores(token_rank)
        return token_nll if token_rank is None else Scores(token_nll, token_rank)

    def isolates_by_blocks(self, device: torch.device) -> bool:
        """Whether FlexAttention isolates packed documents there; else a dense mask does, as attention rules need it."""
        if self.position.attention_rule is not None:
            return False
        dropout = getattr(self.llm.config, "attention_dropout", 0.0)
        return blocks_are_fastest(device, self.llm.dtype, self.head_dim, dropout)

    def use_package(self, device: torch.device, dtype: torch.dtype) -> None:
        """Let a FlashAttention package compute attention: windows and packed documents too, but no decoding.

        Args:
            device: where the model runs, a GPU.
            dtype: dtype of the computation.

        Raises:
            UserError: no package can, or none is installed.
        """
        config = self.llm.config
        others = sorted({*layer_kinds(config)} - {FULL_ATTENTION, "sliding_attention"})
        reasons = {
            f"follows the attention rule of {type(self.position).__name__}": self.position.attention_rule is not None,
            "has soft caps or sinks, which its kernels are not used with": self._changes_scores,
            "drops attention weights (`attention_dropout`)": bool(getattr(config, "attention_dropout", 0.0)),
            f"has layers of {', '.join(others)}": bool(others),
            "splits sequences over ranks": self.sequence_mesh is not None,
        }
        self.package = check_package(device, dtype, self.head_dim, reasons)

    def attention_kernel(self, device: torch.device, dtype: torch.dtype, masked: bool = False) -> str:
        """Name of what computes attention there, for example `cudnn_attention`.

        Args:
            device: where the model runs.
            dtype: dtype of the computation.
            masked: where documents are packed, or a layer has a window.
        """
        if self.position.attention_rule is not None:
            return RULE_ATTENTION
        if self.package is not None:
            return self.package
        if (masked or self._changes_scores) and self.isolates_by_blocks(device):
            return FLEX_ATTENTION
        return kernel_in_use(device, dtype, self.head_dim, self.rope.original_context, masked)

    def attends_in_ring(self, device: torch.device) -> bool:
        """Whether ranks that split sequences pass keys and values around, where no documents are packed."""
        split = self.sequence_mesh is not None and self.position.attention_rule is None
        return split and has_ring(device, self.llm.dtype)

    def _form(self, device: torch.device) -> Form:
        """How masks are written."""
        if self.position.attention_rule is not None:
            return "matrix"
        if self.package is not None:
            return "lengths"
        if self.isolates_by_blocks(device):
            return "blocks"
        return "matrix" if self._changes_scores else "local"

    def _tokens(
        self, device: torch.device, document_ids: Int[Tensor, "batch seq"] | None, split: SequenceSplit | None
    ) -> Tokens:
        form = self._form(device)
        everywhere = form == "lengths" or (form == "blocks" and self._changes_scores)
        if split is None:
            return Tokens(form, document_ids, everywhere=everywhere)
        document_ids = None if document_ids is None else split.padded(document_ids, -1)
        form = "matrix" if form == "local" else form
        in_ring = self.attends_in_ring(device) and document_ids is None
        return Tokens(form, document_ids, keys=split.key_position_ids.shape[1], queries=split.places, ring=in_ring)

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
        tokens = past.tokens(places)
        self.rotary.context_length = past.context_length
        self.rotary.key_position_ids = past.position_ids[:, : places.stop]
        with masks_for(tokens._replace(everywhere=False)):
            logits = self.llm(
                input_ids=input_ids,
                position_ids=past.position_ids[:, places],
                attention_mask=torch.ones_like(past.position_ids[:, : places.stop]),
                past_key_values=past.cache,
                use_cache=True,
                logits_to_keep=0 if scored is None else scored,
            ).logits
        self.rotary.key_position_ids = None
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


def decoder_of(llm: PreTrainedModel) -> nn.Module:
    """The part of a model that makes hidden states, in which its layers are.

    Raises:
        UserError: it has no layers where decoders of the LLaMA family have them.
    """
    for decoder in (llm.base_model, getattr(llm, "model", None)):
        if isinstance(decoder, nn.Module) and isinstance(getattr(decoder, "layers", None), nn.ModuleList):
            return decoder
    raise UserError(
        f"{type(llm).__name__} has no `layers`, as decoders of the LLaMA family have: lit_pi cannot extend it"
    )
