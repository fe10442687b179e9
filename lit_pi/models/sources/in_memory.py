"""A model that is there already: measured and saved without being changed, moved or copied."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from lit_pi.errors import UserError
from lit_pi.gguf_file import is_gguf
from lit_pi.models.attention.attend import ATTENTION
from lit_pi.models.extended_rotary import rotary_of
from lit_pi.models.rotary import install_rotary
from lit_pi.models.sources.filling import Fill
from lit_pi.models.sources.model_source import ModelSource
from lit_pi.models.sources.own_tokenizer import own_tokenizer
from lit_pi.models.sources.provenance import rope_of
from lit_pi.positions import FromConfig, PositionStrategy, Rope


class InMemory(ModelSource):
    """A transformers model of the process: what is built of it has its weights, and nothing else in common with it.

    Args:
        llm: a causal language model of transformers, extended or not.

    Raises:
        UserError: it is something else, or lies on several devices.
    """

    # `Any`, because the command line offers every class of a parameter's type, and their parameters' in turn.
    def __init__(self, llm: Any) -> None:
        check_model(llm)
        devices = {parameter.device for parameter in llm.parameters()}
        if len(devices) != 1 or (device := next(iter(devices))).type == "meta":
            raise UserError(
                f"the model lies on {', '.join(sorted(map(str, devices)))}: move it to one device, model.to('cuda')"
            )
        self.llm: PreTrainedModel = llm
        self.device = device

    @property
    def position(self) -> PositionStrategy:
        """The strategy that the model rotates by: what it was extended with, else what its config says."""
        rotary = rotary_of(self.llm)
        return FromConfig() if rotary is None else rotary.position

    @property
    def rope(self) -> Rope:
        """The rope that the model was pre-trained with.

        Raises:
            UserError: its config holds an extension that does not say what it extended.
        """
        rotary = rotary_of(self.llm)
        return rope_of(self.llm.config) if rotary is None else rotary.rope

    def build(self) -> tuple[PreTrainedModel, Rope]:
        """A model of its own whose parameters lie in the same memory, in the dtype and on the device they have."""
        own: dict[int, Any] = {
            id(parameter): nn.Parameter(parameter.detach(), requires_grad=False) for parameter in self.llm.parameters()
        }
        own |= {id(buffer): buffer for buffer in self.llm.buffers()}
        rope = self.rope
        llm = deepcopy(self.llm, own)
        for module in llm.modules():
            # What was put over the methods of this one, as by torch.compile, would run the other one.
            for name in ("forward", "save_pretrained", "generate"):
                vars(module).pop(name, None)
        if (rotary := rotary_of(llm)) is not None:
            own_rotary: Any = rotary.stock(llm.config)
            install_rotary(llm, own_rotary.to(self.device))
        llm.set_attn_implementation(ATTENTION)
        return llm, rope

    def skeleton(self) -> tuple[PreTrainedModel, Rope]:
        """The same as `build`."""
        return self.build()

    def lazily(self, device: torch.device) -> tuple[PreTrainedModel, Rope, Fill]:
        """The same as `build`."""
        return *self.build(), lambda module: None

    def tokenizer(self) -> dict[str, Any] | None:
        """The tokenizer beside the files that the model was loaded from, where they are on this machine."""
        name = self.llm.config._name_or_path
        place = Path(name or ".")
        if not name or not (place.is_dir() or (is_gguf(place) and place.is_file())):
            return None
        found = own_tokenizer(place)
        return None if found["name"] is None else found

    def describe(self) -> dict[str, Any]:
        """The name that the model was loaded by."""
        return {"class": "InMemory", "path": self.llm.config._name_or_path}


def check_model(llm: object) -> None:
    """Check that something is a causal language model of transformers.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(llm, PreTrainedModel) or llm.get_output_embeddings() is None:
        raise UserError(
            f"the model is a {type(llm).__name__}: give a causal language model of transformers, as "
            "AutoModelForCausalLM.from_pretrained or lit_pi.load returns it"
        )
