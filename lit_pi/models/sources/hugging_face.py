"""Models in Hugging Face format, a directory or an id on the hub: what their config says, and how they are loaded."""

import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME

from lit_pi.errors import UserError, shown
from lit_pi.files import check_fetched
from lit_pi.models.sources.weight_files import find
from lit_pi.seal import Seal


def config_of(model: str, here: bool) -> PreTrainedConfig:
    """The config of a directory or hub id; no code that comes with it is run.

    Args:
        model: the directory or id.
        here: look on this machine only.

    Raises:
        UserError: it cannot be read, is not what was exported, or is an adapter's or a quantised model's.
    """
    try:
        Seal(Path(model)).check_description()
        if find(model, ADAPTER_CONFIG_NAME, here) is not None:
            raise UserError(
                f"{model} holds an adapter of peft ({ADAPTER_CONFIG_NAME}): merge it into its model with peft's "
                "`merge_and_unload`, and name the directory where you save that"
            )
        if (file := find(model, CONFIG_NAME, here)) is None:
            raise FileNotFoundError(f"there is no {CONFIG_NAME}")
        check_fetched(file)
        config = AutoConfig.from_pretrained(model, local_files_only=here, trust_remote_code=False)
    except UserError:
        raise
    except Exception as error:  # a config may say anything, and transformers checks little of it
        raise unreadable(model, here, error) from error
    named = config.architectures
    if named is not None and not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        raise UserError(f"the {CONFIG_NAME} of {model} has `architectures` {named!r}: it must be a list of names")
    for part in (config, config.get_text_config()):
        found = (getattr(part, name, None) for name in ("quantization_config", "compression_config"))
        if (quantisation := next((each for each in found if each is not None), None)) == {}:
            raise UserError(
                f"the {CONFIG_NAME} of {model} has an empty quantization_config: remove it if the weights are not "
                "quantised"
            )
        if quantisation is not None:
            raise UserError(
                f"the weights of {model} are quantised ({_method(quantisation)}), and lit_pi trains and measures those "
                "that are not: name the model that they were made from, or save what transformers' `dequantize()` of "
                "this one returns"
            )
    return config


def unreadable(model: str, here: bool, error: Exception) -> UserError:
    """That transformers cannot read a model, with its reason and the fields of its config that it may be about."""
    if "trust_remote_code" in str(error):
        return UserError(
            f"cannot load the model {model}: its config names code of its own (auto_map), which is never run: take "
            "one whose classes transformers has"
        )
    if isinstance(error, StrictDataclassError) and (field := _OF_ANOTHER_TYPE.search(str(error))):
        name, kind, *values = field.groups()
        value, wanted = (
            next(filter(None, values)),
            f"it must be of type {kind}" if kind else "it may not be of this type",
        )
        return UserError(f"the {CONFIG_NAME} of {model} has `{name}` {shown(value)}: {wanted}; correct it")
    where = "in this directory" if Path(model).is_dir() else "on this machine" if here else "on the hub"
    lines = [line.strip() for line in str(error).splitlines()] or [""]
    reason = " ".join(lines) if isinstance(error, StrictDataclassError) else lines[0]
    if not isinstance(error, (OSError, ValueError, StrictDataclassError)):
        reason = f"{type(error).__name__}: {reason}"  # which alone is no sentence
    fields = ", ".join(f"`{name}` {value!r}" for name, value in _suspects(model, here, str(error)).items())
    blamed = f"; {CONFIG_NAME} has {fields}" if fields else ""
    return UserError(f"cannot load the model {model}: nothing that transformers can read is {where} ({reason}{blamed})")


_OF_ANOTHER_TYPE = re.compile(
    r"Field '(\w+)' (?:expected (\w+), got \w+ \(value: (.*)\)|with value (.*?) doesn't match any type)"
)
"""How huggingface_hub says that a field has a value of another type."""
_COUNTS = re.compile(r"num_|_size|_dim$|_factor$|^factor|theta|max_position")
"""Names of fields whose numbers are positive."""


def _suspects(model: str, here: bool, said: str) -> dict[str, Any]:
    """Fields of a config that cannot be right, and those whose text an error quotes."""
    try:
        file = find(model, CONFIG_NAME, here)
        content = {} if file is None else json.loads(file.read_text())
        scaling = [content.get(name) or {} for name in ("rope_parameters", "rope_scaling")]
        fields = dict(pair for part in (content, *scaling) for pair in part.items())
    except Exception:  # a sentence about a config that is none would only hide the error
        return {}
    words = {*re.findall(r"'([^' ]+)'", said)}
    found = {}
    for name, value in fields.items():
        count = _COUNTS.search(name) is not None
        if isinstance(value, str):
            wrong = count or value in words
        else:
            wrong = count and isinstance(value, int | float) and not value > 0
        if wrong or (name == "pad_token_id" and "adding_idx" in said):
            found[name] = value
    return found


def _method(quantisation: object) -> str:
    fields = quantisation if isinstance(quantisation, dict) else vars(quantisation)
    bitsandbytes = fields.keys() & {"load_in_4bit", "load_in_8bit"}  # whose older configs do not say more
    return str(fields.get("quant_method") or ("bitsandbytes" if bitsandbytes else "by an unnamed method"))
