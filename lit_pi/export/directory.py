"""An extended model in the files of a Hugging Face directory."""

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerFast

from lit_pi.errors import UserError
from lit_pi.export.generation_settings import check_settings
from lit_pi.models import LanguageModel
from lit_pi.models.sources.provenance import KEY, config_in_effect
from lit_pi.positions import FULL_ATTENTION
from lit_pi.positions.by_layer import is_by_kind, of_kinds

CONFIG = "config.json"


def write_model(
    model: LanguageModel, directory: Path, target_context: int | None = None, max_shard_size: str = "5GB"
) -> PreTrainedConfig:
    """Write weights, as safetensors, and a config that rotates as the model does.

    Args:
        model: the model to write, in the dtype it has.
        directory: the directory to write to.
        target_context: tokens of context that the model is for; what its strategy is made for by default.
        max_shard_size: largest size of a file of weights, for example `5GB`.

    Returns:
        The config as written.

    Raises:
        UserError: transformers cannot express the strategy, or a setting of generation is none.
    """
    check_settings(model.llm.generation_config, model.llm.name_or_path or "the model")
    config = config_in_effect(model.llm.config, model.position, model.rope, target_context)
    if refusal := getattr(config, KEY).get("refusal"):
        raise UserError(refusal)
    rope_parameters = config.rope_parameters
    for parameters in of_kinds(rope_parameters).values() or [rope_parameters]:
        if parameters and parameters["rope_type"] == "longrope" and "attention_factor" in parameters:
            # What vLLM calls it, which otherwise takes one from the context lengths.
            for name in ("short_mscale", "long_mscale"):
                parameters.setdefault(name, parameters["attention_factor"])
    model.llm.save_pretrained(directory, max_shard_size=max_shard_size)
    # What transformers adds while it saves.
    config.architectures, config.dtype = model.llm.config.architectures, model.llm.config.dtype
    content = json.loads(config.to_json_string())
    content |= older_form(content)
    (directory / CONFIG).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    for weights in directory.glob("*.safetensors"):  # which safetensors lets nobody else read
        shutil.copymode(directory / CONFIG, weights)
    return config


def older_form(content: Mapping[str, Any]) -> dict[str, Any]:
    """`rope_theta`, `rope_scaling` and the like, which readers older than transformers 5 look for.

    Of `rope_parameters` by kind of layer they are what transformers takes for the same, as it does in Gemma 3; none
    where it takes them for something else, or does not know them.

    Args:
        content: the content of a config as a file has it, with the `rope_parameters` to say otherwise.
    """
    parameters = content["rope_parameters"]
    if not is_by_kind(parameters):
        return _older(parameters)
    main, local = (parameters.get(kind) for kind in (FULL_ATTENTION, "sliding_attention"))
    if main is None or local is None:
        return {}
    older = _older(main) | {"rope_local_base_freq": local["rope_theta"]}
    newer = AutoConfig.for_model(content["model_type"])
    fields = {name: value for name, value in content.items() if name not in ("rope_parameters", KEY)}
    read = type(newer).from_dict(fields | copy.deepcopy(older)).rope_parameters
    for each in of_kinds(read).values():
        each.pop("type", None)
    return older if read == parameters else {}


def _older(rope_parameters: Mapping[str, Any]) -> dict[str, Any]:
    kind = rope_parameters["rope_type"]
    scaling = {name: value for name, value in rope_parameters.items() if name != "rope_theta"}
    found = {
        "rope_theta": rope_parameters["rope_theta"],
        "rope_scaling": None if kind == "default" else {**scaling, "type": kind},
    }
    if kind != "proportional" and (part := rope_parameters.get("partial_rotary_factor")) is not None:
        found["partial_rotary_factor"] = part
    return found


def use_tokenizer(model: LanguageModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Let generation begin and end with the tokenizer's own tokens, unless it ends with that token already."""
    llm, end = model.llm, tokenizer.eos_token_id
    known = llm.config.eos_token_id
    if end is None or end in (known if isinstance(known, list) else [known]):
        return
    for settings in (llm.config, llm.generation_config):
        settings.bos_token_id, settings.eos_token_id = tokenizer.bos_token_id, end
