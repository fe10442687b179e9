"""Sources of a model's weights: random, a Hugging Face model, or a lit_pi checkpoint."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedModel

from lit_pi.errors import UserError
from lit_pi.hub import hub_offers
from lit_pi.models.attention.documents import ATTENTION
from lit_pi.models.sources.checkpoint import SavedCheckpoint, newest_checkpoint, read_checkpoint
from lit_pi.models.sources.filling import Fill, Filling
from lit_pi.models.sources.provenance import put_in_effect, rope_of
from lit_pi.models.sources.sizes import LLAMA_SIZES, Size
from lit_pi.models.sources.stored import is_sharded, safetensors_of
from lit_pi.models.training.lora import LoRA
from lit_pi.positions import Rope


class ModelSource(ABC):
    """Builds a causal language model and tells what its positions were pre-trained with."""

    @abstractmethod
    def build(self) -> tuple[PreTrainedModel, Rope]:
        """The model in torch's default dtype, and its rotary embedding before any extension."""

    @abstractmethod
    def skeleton(self) -> tuple[PreTrainedModel, Rope]:
        """The same with weights of any value, none of which is read."""

    @abstractmethod
    def lazily(self, device: torch.device) -> tuple[PreTrainedModel, Rope, Fill]:
        """The same as `build`, with weights that each module only gets when it is filled, in the order of `apply`.

        Args:
            device: where each module's weights are made.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The origin of the weights, in a few words that go into results."""


class FromScratch(ModelSource):
    """Random weights of a LLaMA, to be pre-trained; `max_position_embeddings` is its original context.

    Args:
        size: a published LLaMA size, or `2m` for one that trains on a laptop.
        config: fields of transformers' `LlamaConfig`, on top of the size.

    Raises:
        UserError: neither is given, a field is not one of `LlamaConfig`, or they do not belong together.
    """

    def __init__(self, size: Size | None = None, config: dict[str, Any] | None = None) -> None:
        if size is None and not config:
            raise UserError("FromScratch got nothing to build: give a `size` (7b, ...) or `config` fields")
        fields = {**(LLAMA_SIZES[size] if size else {}), **(config or {})}
        if unknown := sorted(fields.keys() - LlamaConfig().to_dict().keys()):
            raise UserError(f"FromScratch got config field `{unknown[0]}`, which LlamaConfig does not have")
        try:
            self.config = LlamaConfig(**fields)
        except (StrictDataclassError, ValueError) as error:
            reason = str(error).splitlines()[-1].strip().removeprefix("ValueError: ")
            raise UserError(f"FromScratch got config fields that do not make a model: {reason}") from error

    def build(self) -> tuple[PreTrainedModel, Rope]:
        """Weights drawn by transformers' initialisation, from torch's global generator."""
        return _from_config(self.config), rope_of(self.config)

    def skeleton(self) -> tuple[PreTrainedModel, Rope]:
        """The same as `build`."""
        return self.build()

    def lazily(self, device: torch.device) -> tuple[PreTrainedModel, Rope, Fill]:
        """The weights that `build` draws on this device."""
        with torch.device("meta"):
            llm, rope = self.skeleton()
        # Modules draw for themselves when they are made: the inner model's, then transformers for all of them, then
        # the output layer and transformers for it.
        inner = set(llm.base_model.modules())
        for module in llm.base_model.modules():
            _draw_as_made(module, device)

        def draw(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
            if module not in inner:
                _draw_as_made(module, device)
            llm._init_weights(module)

        return llm, rope, Filling(llm, draw, device)

    def describe(self) -> dict[str, Any]:
        """The fields of the config that differ from `LlamaConfig`'s defaults."""
        return {"class": "FromScratch", **self.config.to_diff_dict()}


class Pretrained(ModelSource):
    """Weights of a Hugging Face model, or of a lit_pi checkpoint (weights only: fresh optimizer and step).

    A checkpoint of an adapter is merged into the model that it was trained on.

    Args:
        path: a directory in Hugging Face format, the run directory of a `fit` (its newest checkpoint), a lit_pi
            `.ckpt` (file or folder of shards), or the id of a model on the hub.
        original_context: tokens of context in pre-training, needed where the model's config does not say.
    """

    def __init__(self, path: str, original_context: int | None = None) -> None:
        self.path = path
        self.original_context = original_context

    def build(self, keep_dtype: bool = False) -> tuple[PreTrainedModel, Rope]:
        """The model of the directory, checkpoint or hub id.

        Args:
            keep_dtype: build it in the dtype it is stored in, and not in torch's default.

        Raises:
            UserError: nothing is there, it cannot be read, or its original context is unknown.
        """
        path = self._place()
        if _is_checkpoint(path):
            checkpoint = read_checkpoint(path)
            if checkpoint.adapter is not None:
                return self._merged(checkpoint, keep_dtype)
            stored = next(iter(checkpoint.weights.values())).dtype
            with torch.random.fork_rng(devices=[]):  # adapters draw the same, whatever they are made beside
                llm = _from_config(checkpoint.config, stored if keep_dtype else None)
            _copy(checkpoint.weights, dict(llm.named_parameters()))
            return llm, rope_of(checkpoint.config)
        if not path.is_dir() and (path.is_absolute() or len(path.parts) > 2 or path.suffix == ".ckpt"):
            raise UserError(
                f"no model at {path}: name a Hugging Face directory, a run directory, a .ckpt file or a hub id"
            )
        here = path.is_dir() or not hub_offers(self.path)
        try:
            config = AutoConfig.from_pretrained(path, local_files_only=here)
            llm = AutoModelForCausalLM.from_pretrained(
                path,
                config=config,
                local_files_only=here,
                dtype="auto" if keep_dtype else torch.get_default_dtype(),
                attn_implementation=ATTENTION,
            )
        except (OSError, ValueError) as error:
            raise self._unreadable(path, error) from error
        return llm, rope_of(config, self.original_context)

    def skeleton(self) -> tuple[PreTrainedModel, Rope]:
        """A model of the config of the directory, checkpoint or hub id.

        Raises:
            UserError: there is none.
        """
        path = self._place()
        if _is_checkpoint(path):
            config = read_checkpoint(path).config
            return _from_config(config), rope_of(config)
        try:
            config = AutoConfig.from_pretrained(path, local_files_only=path.is_dir() or not hub_offers(self.path))
        except (OSError, ValueError) as error:
            raise self._unreadable(path, error) from error
        return _from_config(config), rope_of(config, self.original_context)

    def lazily(self, device: torch.device) -> tuple[PreTrainedModel, Rope, Fill]:
        """The weights as they are stored, read one by one.

        Adapters, and what is no safetensors, are built at once, on torch's default device.

        Raises:
            UserError: nothing is there, it cannot be read, or its original context is unknown.
        """
        with torch.device("meta"):
            llm, rope = self.skeleton()
        weights = self._stored(llm)
        # Values of buffers are not stored.
        if weights is None or any("rotary_emb" not in name for name, _ in llm.named_buffers()):
            return *self.build(), lambda module: None
        return llm, rope, Filling(llm, lambda module, wanted: _copy(weights, wanted), device)

    def _stored(self, llm: PreTrainedModel) -> Mapping[str, Tensor] | None:
        """The weights that can be read one by one, if they are all that the model needs; else None."""
        path = self._place()
        if _is_checkpoint(path):
            checkpoint = read_checkpoint(path)
            return checkpoint.weights if checkpoint.adapter is None else None
        if hasattr(llm.config, "quantization_config"):
            return None
        weights = safetensors_of(str(path))
        return weights if weights is not None and set(dict(llm.named_parameters())) <= set(weights) else None

    def _unreadable(self, path: Path, error: Exception) -> UserError:
        where = "in this directory" if path.is_dir() else "on this machine or on the hub"
        return UserError(
            f"cannot load the model {self.path}: nothing that transformers can read is {where} "
            f"({str(error).splitlines()[0]})"
        )

    def origin(self) -> dict[str, Any]:
        """The arguments with which the same weights are found from any directory, now and after further training."""
        path = self._place()
        return {
            "path": str(path.resolve()) if path.exists() else self.path,
            "original_context": self.original_context,
        }

    def _place(self) -> Path:
        path = Path(self.path).expanduser()
        return newest_checkpoint(path) if (path / "checkpoints").is_dir() else path

    def _merged(self, checkpoint: SavedCheckpoint, keep_dtype: bool) -> tuple[PreTrainedModel, Rope]:
        assert checkpoint.adapter is not None and checkpoint.base is not None
        llm, _ = Pretrained(**checkpoint.base).build(keep_dtype)
        LoRA(**checkpoint.adapter).merge(llm, dict(checkpoint.weights))
        put_in_effect(checkpoint.config, llm.config)
        return llm, rope_of(checkpoint.config)

    def describe(self) -> dict[str, Any]:
        """The path as given."""
        return {"class": "Pretrained", "path": self.path}


def _draw_as_made(module: nn.Module, device: torch.device) -> None:
    """Draw what a module draws when it is made, and forget it."""
    if hasattr(module, "reset_parameters"):
        forgotten: Any = deepcopy(module).to_empty(device=device)
        forgotten.reset_parameters()


def _is_checkpoint(path: Path) -> bool:
    return path.is_file() or is_sharded(path)


@torch.no_grad()
def _copy(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    for name, tensor in wanted.items():
        tensor.copy_(weights[name])


def _from_config(config: PreTrainedConfig, dtype: torch.dtype | None = None) -> PreTrainedModel:
    return AutoModelForCausalLM.from_config(
        config, dtype=dtype or torch.get_default_dtype(), attn_implementation=ATTENTION
    )
