"""An extended model in the files of a Hugging Face directory."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from lit_pi.errors import UserError
from lit_pi.models import LanguageModel
from lit_pi.models.sources.provenance import KEY, config_in_effect

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
        UserError: transformers cannot express the strategy.
    """
    config = config_in_effect(model.llm.config, model.position, model.rope, target_context)
    if refusal := getattr(config, KEY).get("refusal"):
        raise UserError(refusal)
    _attend_everywhere(config)
    if attention_factor := config.rope_parameters.get("attention_factor"):
        # What vLLM calls it in `longrope`, where it otherwise takes one from the context lengths.
        names = ("short_mscale", "long_mscale") if config.rope_parameters["rope_type"] == "longrope" else ()
        config.rope_parameters = dict.fromkeys(names, attention_factor) | config.rope_parameters
    model.llm.save_pretrained(directory, max_shard_size=max_shard_size)
    # What transformers adds while it saves.
    config.architectures, config.dtype = model.llm.config.architectures, model.llm.config.dtype
    content = json.loads(config.to_json_string()) | older_form(config.rope_parameters)
    (directory / CONFIG).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    return config


def older_form(rope_parameters: dict[str, Any]) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling`, which readers older than transformers 5 look for, of `rope_parameters`."""
    scaling = {name: value for name, value in rope_parameters.items() if name != "rope_theta"}
    kind = scaling["rope_type"]
    return {
        "rope_theta": rope_parameters["rope_theta"],
        "rope_scaling": None if kind == "default" else {**scaling, "type": kind},
    }


def use_tokenizer(model: LanguageModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Let generation begin and end with the tokenizer's own tokens, unless it ends with that token already."""
    llm, end = model.llm, tokenizer.eos_token_id
    known = llm.config.eos_token_id
    if end is None or end in (known if isinstance(known, list) else [known]):
        return
    for settings in (llm.config, llm.generation_config):
        settings.bos_token_id, settings.eos_token_id = tokenizer.bos_token_id, end


def _attend_everywhere(config: PreTrainedConfig) -> None:
    """Switch off a sliding window shorter than the context: lit_pi's attention has none."""
    window = getattr(config, "sliding_window", None)
    if window is None or window >= config.max_position_embeddings:
        return
    config.sliding_window = None
    if hasattr(config, "use_sliding_window"):
        config.use_sliding_window = False
    if getattr(config, "layer_types", None):
        config.layer_types = ["full_attention"] * config.num_hidden_layers
