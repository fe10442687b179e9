"""A model whose files are open: an outline without data, and weights that fit it, to be read at once or by module."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import GENERATION_CONFIG_NAME

from lit_pi.errors import UserError
from lit_pi.files import check_fetched
from lit_pi.models.attention.attend import ATTENTION
from lit_pi.models.sources.checkpoint import SavedCheckpoint
from lit_pi.models.sources.filling import Filling
from lit_pi.models.sources.finite import check_finite
from lit_pi.models.sources.fitted import Misfits, fitted
from lit_pi.models.sources.stored import Stored
from lit_pi.models.sources.weight_files import find, weights_of
from lit_pi.ranges import Range


class Opened(NamedTuple):
    """A model that is yet to be read.

    Attributes:
        place: where it is.
        config: its config, as it stands there.
        outline: the model without data.
        weights: its weights, none missing and none left over, by their names in the model or before it is converted.
        restored: whether they are those of a checkpoint.
    """

    place: Path
    config: PreTrainedConfig
    outline: PreTrainedModel
    weights: Stored
    restored: bool

    def built(self, keep_dtype: bool = False) -> PreTrainedModel:
        """The model with its weights.

        Args:
            keep_dtype: build it in the dtype it is stored in, and not in torch's default.

        Raises:
            UserError: weights are not finite.
        """
        if not self.restored:
            return self._converted(keep_dtype)
        stored = next(iter(self.weights.like.values())).dtype
        with torch.random.fork_rng(devices=[]):  # adapters draw the same, whatever they are made beside
            llm = from_config(self.config, stored if keep_dtype else None)
        self._copy({name: weight for name, weight in llm.state_dict().items() if name in self.weights})
        return llm

    def filling(self, device: torch.device) -> Filling | None:
        """Gives the outline's modules their weights, where these can be read one by one; else None."""
        # Values of buffers are not stored, and what transformers converts comes together.
        buffers = any("rotary_emb" not in name for name, _ in self.outline.named_buffers())
        if buffers or dict(self.outline.named_parameters()).keys() - self.weights.keys():
            return None
        return Filling(self.outline, lambda module, wanted: self._copy(wanted), device)

    @torch.no_grad()
    def _copy(self, wanted: Mapping[str, Tensor]) -> None:
        for name, tensor in wanted.items():
            tensor.copy_(self.weights[name])
        check_finite(self.place, wanted.items())

    def _converted(self, keep_dtype: bool) -> PreTrainedModel:
        # Not by the model's name: its files have been read and judged, and names may have been stripped.
        llm = type(self.outline).from_pretrained(
            None,
            config=self.config,
            state_dict=dict(self.weights),
            local_files_only=True,
            dtype="auto" if keep_dtype else torch.get_default_dtype(),
            attn_implementation=ATTENTION,
        )
        llm.name_or_path = llm.config.name_or_path = str(self.place)
        if (file := find(str(self.place), GENERATION_CONFIG_NAME, here=True)) is not None:
            check_fetched(file)
            try:
                llm.generation_config = GenerationConfig.from_pretrained(self.place, local_files_only=True)
            except Exception as error:
                raise UserError(
                    f"the {GENERATION_CONFIG_NAME} of {self.place} cannot be read ({type(error).__name__}): mend or "
                    "remove it"
                ) from error
        check_finite(self.place, llm.named_parameters())
        return llm


def opened(
    place: Path, config: PreTrainedConfig, outline: PreTrainedModel, checkpoint: SavedCheckpoint | None, here: bool
) -> Opened:
    """Open the weights of a model.

    Args:
        place: a directory or hub id in Hugging Face format, or a checkpoint.
        config: its config.
        outline: the model without data.
        checkpoint: what was read of a checkpoint; None for the others.
        here: look on this machine only.

    Raises:
        UserError: they cannot be read, or are not the weights of that model.
    """
    stored = weights_of(str(place), config, here) if checkpoint is None else checkpoint.weights
    weights = fitted(stored, outline, place)
    if checkpoint is not None:  # of which transformers converts nothing
        Misfits(missing=dict(outline.named_parameters()).keys() - weights.keys()).refuse(place)
    return Opened(place, config, outline, weights, checkpoint is not None)


LAYERS = Range(1, 10_000)
"""Layers that a model has."""


def from_config(config: PreTrainedConfig, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """A model of a config with random weights, in torch's default dtype if none is given.

    Raises:
        UserError: it has more layers than any model has, which would take for ever to make.
    """
    LAYERS.check("num_hidden_layers of the config", config.num_hidden_layers)
    return AutoModelForCausalLM.from_config(
        config, dtype=dtype or torch.get_default_dtype(), attn_implementation=ATTENTION
    )
