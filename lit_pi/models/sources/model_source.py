"""Sources of a model's weights: random, a Hugging Face model, or a lit_pi checkpoint."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import LlamaConfig, PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lit_pi.errors import UserError, nearest, shown
from lit_pi.gguf_file import is_gguf, read_header
from lit_pi.hub import hub_offers
from lit_pi.models.sources.checkpoint import (
    SavedCheckpoint,
    history,
    is_checkpoint,
    is_run,
    newest_checkpoint,
    read_checkpoint,
    training_records,
)
from lit_pi.models.sources.filling import Fill, Filling
from lit_pi.models.sources.finite import check_finite
from lit_pi.models.sources.hugging_face import config_of, unreadable
from lit_pi.models.sources.llama_cpp.loading import gguf_config, load_gguf
from lit_pi.models.sources.opened import LAYERS, Opened, from_config, opened
from lit_pi.models.sources.own_tokenizer import own_tokenizer
from lit_pi.models.sources.provenance import put_in_effect, rope_of
from lit_pi.models.sources.sizes import LLAMA_SIZES, Size
from lit_pi.models.training.lora import LoRA
from lit_pi.positions import Rope
from lit_pi.ranges import Range
from lit_pi.runs.status import say_if_unfinished, unfinished

FIELDS = {
    **dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size"), Range(1)),
    "num_hidden_layers": LAYERS,
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"), Range(1)),
    "attention_dropout": Range(0, 1, below=True),
    "initializer_range": Range(0),
    **dict.fromkeys(("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps"), Range(0)),
}
"""Ranges of fields of `LlamaConfig`, and of others that name the same."""
NAMES = {"model_type": {"llama"}, "hidden_act": ACT2FN.keys(), "rope_type": {"default", *ROPE_INIT_FUNCTIONS}}
"""Names that fields of `LlamaConfig` and of its `rope_parameters` may be."""


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

    def tokenizer(self) -> dict[str, Any] | None:
        """Record of the tokenizer that the weights were trained with; None for weights that were not trained.

        Its `name` loads it, and `vocabulary` is the digest of its vocabulary that a run recorded; each is None where it
        is not known. `model` is the model's name, `vocab_size` the size of its vocabulary.
        """
        return None

    def training_records(self) -> list[dict[str, Any]]:
        """Records of the token stores that runs trained the weights on, as far as they are known."""
        return []

    def history(self) -> list[dict[str, Any]]:
        """Trainings that the weights come from, as far as they are known: see `callbacks/history.py`."""
        return []

    def unfinished(self) -> str | None:
        """Say how the training of the weights ended, where it did not end well, as far as that is known."""
        return None


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
        if unknown := sorted(fields.keys() - (known := LlamaConfig().to_dict()).keys()):
            likely = nearest(unknown[0], known)
            raise UserError(f"FromScratch got config field `{unknown[0]}`{likely}, which LlamaConfig does not have")
        self._check_names(fields)
        for field, allowed in FIELDS.items():
            if isinstance(value := fields.get(field), int | float):
                allowed.check(f"{field} of FromScratch", value)
        try:
            self.config = LlamaConfig(**fields)
            with torch.device("meta"):
                from_config(self.config.__class__(**fields | {"num_hidden_layers": 1}))
            rope_of(self.config)
        except UserError:
            raise
        except Exception as error:  # fields may hold anything
            reason = (str(error).splitlines() or [""])[-1].strip().removeprefix("ValueError: ")
            sentence = isinstance(error, (StrictDataclassError, ValueError))
            reason = reason if sentence else f"{type(error).__name__}: {reason}"
            raise UserError(f"FromScratch got config fields that do not make a model: {reason}") from error
        self._check_heads(self.config.to_dict())

    def _check_names(self, fields: Mapping[str, Any]) -> None:
        given = fields.get("rope_parameters")
        rope = dict(given) if isinstance(given, Mapping) else {}
        said = {**fields, **({"rope_type": rope["type"]} if "type" in rope else {}), **rope}
        for field, names in NAMES.items():
            if field in said and str(said[field]) not in names:
                likely = nearest(str(said[field]), names) or f": it must be one of {', '.join(sorted(names))}"
                raise UserError(f"{field} of FromScratch is {shown(said[field])}, which a LLaMA does not have{likely}")

    def _check_heads(self, fields: Mapping[str, Any]) -> None:
        heads, groups, dim = (fields[name] for name in ("num_attention_heads", "num_key_value_heads", "head_dim"))
        if heads % groups or dim % 2:
            raise UserError(
                f"FromScratch got {heads} attention heads of size {dim} over {groups} of keys and values: the number "
                "of the latter has to divide that of the former, and the size to be even"
            )

    def build(self) -> tuple[PreTrainedModel, Rope]:
        """Weights drawn by transformers' initialisation, from torch's global generator."""
        return from_config(self.config), rope_of(self.config)

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

    A checkpoint of an adapter is merged into the model that it was trained on. Weights have to be those of the config:
    none missing, none left over, none of another shape, all of them finite.

    Args:
        path: a directory in Hugging Face format, the run directory of a `fit` (its newest checkpoint), a lit_pi
            `.ckpt` (file or folder of shards), a `.gguf` file of llama.cpp's, or the id of a model on the hub.
        original_context: tokens of context in pre-training, needed by a strategy other than the config's own where the
            config does not say.
    """

    def __init__(self, path: str, original_context: int | None = None) -> None:
        self.path = path
        self.original_context = original_context

    def build(self, keep_dtype: bool = False) -> tuple[PreTrainedModel, Rope]:
        """The model of the directory, checkpoint or hub id.

        Args:
            keep_dtype: build it in the dtype it is stored in, and not in torch's default.

        Raises:
            UserError: nothing is there, it cannot be read, its weights are not those of its config or not finite, or
                its original context is unknown.
        """
        say_if_unfinished(Path(self.path).expanduser())
        config, checkpoint = self._read()
        if checkpoint is not None and checkpoint.adapter is not None:
            return self._merged(checkpoint, keep_dtype)
        rope = rope_of(config, self.original_context)
        if is_gguf(self._place()):
            llm = load_gguf(self._place(), keep_dtype)
            check_finite(self._place(), llm.named_parameters())
            return llm, rope
        return self._open(config, checkpoint).built(keep_dtype), rope

    def unfinished(self) -> str | None:
        """Say it of the run directory, or of the one that the checkpoint is in."""
        place = Path(self.path).expanduser()
        return unfinished(place.parent.parent if place.suffix == ".ckpt" else place)

    def skeleton(self) -> tuple[PreTrainedModel, Rope]:
        """A model of the config of the directory, checkpoint or hub id.

        Raises:
            UserError: there is none.
        """
        config, _ = self._read()
        return self._outline(config), rope_of(config, self.original_context)

    def lazily(self, device: torch.device) -> tuple[PreTrainedModel, Rope, Fill]:
        """The weights as they are stored, read one by one.

        Adapters, and what transformers converts, are built at once, on torch's default device.

        Raises:
            UserError: as `build` does; but of weights that are not finite, only when a module is filled with them.
        """
        say_if_unfinished(Path(self.path).expanduser())
        config, checkpoint = self._read()
        if checkpoint is not None and checkpoint.adapter is not None:
            return *self._merged(checkpoint, keep_dtype=False), lambda module: None
        if is_gguf(self._place()):  # transformers dequantises all of the file's blocks in one go
            return *self.build(), lambda module: None
        rope = rope_of(config, self.original_context)
        opened = self._open(config, checkpoint)
        if (filling := opened.filling(device)) is None:
            return opened.built(), rope, lambda module: None
        return opened.outline, rope, filling

    def origin(self) -> dict[str, Any]:
        """The arguments with which the same weights are found from any directory, now and after further training."""
        path = self._place()
        return {
            "path": str(path.resolve()) if path.exists() else self.path,
            "original_context": self.original_context,
        }

    def _place(self) -> Path:
        path = Path(self.path).expanduser()
        return newest_checkpoint(path) if is_run(path) else path

    def _read(self) -> tuple[PreTrainedConfig, SavedCheckpoint | None]:
        """The config, and the checkpoint that it is of, if it is of one."""
        path = self._place()
        if is_gguf(path):
            config = gguf_config(path)
            self._check_fields(config)
            return config, None
        if is_checkpoint(path):
            checkpoint = read_checkpoint(path)
            return checkpoint.config, checkpoint
        if not path.is_dir() and (path.is_absolute() or len(path.parts) > 2 or path.suffix == ".ckpt"):
            raise UserError(
                f"no model at {path}: name a Hugging Face directory, a run directory, a .ckpt or .gguf file or a hub id"
            )
        config = config_of(str(path), self._here)
        self._check_fields(config)
        return config, None

    def _check_fields(self, config: PreTrainedConfig) -> None:
        """Check the numbers of a config that anybody may have written, which else are missed late or by nobody."""
        for field, value in config.get_text_config().to_dict().items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                FIELDS.get(field, Range()).check(f"{field} of the config of {self.path}", value)

    @property
    def _here(self) -> bool:
        """Whether only files on this machine are looked for."""
        return self._place().exists() or not hub_offers(self.path)

    def _outline(self, config: PreTrainedConfig) -> PreTrainedModel:
        try:
            return from_config(deepcopy(config))  # its own dtype is kept
        except Exception as error:  # a config may say anything
            raise unreadable(self.path, self._here, error) from error

    def _open(self, config: PreTrainedConfig, checkpoint: SavedCheckpoint | None) -> Opened:
        with torch.device("meta"):
            outline = self._outline(config)
        return opened(self._place(), config, outline, checkpoint, self._here)

    def _merged(self, checkpoint: SavedCheckpoint, keep_dtype: bool) -> tuple[PreTrainedModel, Rope]:
        assert checkpoint.adapter is not None and checkpoint.base is not None
        llm, _ = Pretrained(**checkpoint.base).build(keep_dtype)
        weights = dict(checkpoint.weights)
        check_finite(self._place(), weights.items())
        LoRA(**checkpoint.adapter).merge(llm, weights)
        put_in_effect(checkpoint.config, llm.config)
        return llm, rope_of(checkpoint.config)

    def tokenizer(self) -> dict[str, Any]:
        """The tokenizer beside the weights, or of the run that trained them.

        Raises:
            UserError: there is no model.
        """
        path = self._place()
        found = own_tokenizer(path, self.path)
        if not is_checkpoint(path) and not is_gguf(path):
            config, _ = self._read()
            found["vocab_size"] = getattr(config, "vocab_size", None)
        return found

    def training_records(self) -> list[dict[str, Any]]:
        """Records that the checkpoint keeps.

        Raises:
            UserError: a file is no checkpoint, or a damaged one.
        """
        return training_records(self._place())

    def history(self) -> list[dict[str, Any]]:
        """Trainings that the checkpoint tells of.

        Raises:
            UserError: a file is no checkpoint, or a damaged one.
        """
        return history(self._place())

    def describe(self) -> dict[str, Any]:
        """The path as given, and what a GGUF file's weights are stored in."""
        description = {"class": "Pretrained", "path": self.path}
        path = self._place()
        return description | ({"weights": read_header(path).quantisation} if is_gguf(path) else {})


def _draw_as_made(module: nn.Module, device: torch.device) -> None:
    """Draw what a module draws when it is made, and forget it."""
    if hasattr(module, "reset_parameters"):
        forgotten: Any = deepcopy(module).to_empty(device=device)
        forgotten.reset_parameters()
