"""A small model of the same kind: the config of a large one, with everything smaller but what positions depend on."""

import copy
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from lit_pi.models.equality.stock import EAGER

WINDOW = 16
"""Tokens of the twin's windows and chunks."""

LAYERS = 6
"""Layers of the twin, or more where there are more kinds of them."""

_HEADS = 4
_WINDOWS = ("sliding_window", "attention_chunk_size", "attention_window_size", "floor_scale")
_SIZES = {"vocab_size": 128, "intermediate_size": 64, "moe_intermediate_size": 32}
_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")


def twin_of(config: PreTrainedConfig) -> PreTrainedModel:
    """A model with random weights and the kinds of layers, heads' dimensions and rope fields of a config; float32.

    Smaller are its width, its vocabulary, its windows, and its layers where fewer have every kind. Where a model
    cannot be made so, only windows, vocabulary and layers are smaller.
    """
    for narrow in (True, False):
        small = _small(config, narrow)
        try:
            with torch.device("cpu"), torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = AutoModelForCausalLM.from_config(small, dtype=torch.float32, attn_implementation=EAGER)
                _draw(model)
                model.eval()(input_ids=torch.zeros(1, 2, dtype=torch.long), use_cache=False)
        except Exception:
            if not narrow:
                raise
            continue
        return model
    raise AssertionError


def _small(config: PreTrainedConfig, narrow: bool) -> PreTrainedConfig:
    fields = copy.deepcopy(config).to_dict()
    layers = config.num_hidden_layers
    lists = {name: value for name, value in fields.items() if isinstance(value, list) and len(value) == layers}
    first = {str(kind): place for place, kind in reversed([*enumerate(zip(*lists.values(), strict=True))])}
    others = [place for place in range(layers) if place not in first.values()]
    kept = sorted([*first.values(), *others[: max(LAYERS - len(first), 0)]])
    changed: dict[str, Any] = {name: [value[place] for place in kept] for name, value in lists.items()}
    changed["num_hidden_layers"] = len(kept)
    changed |= {name: min(fields[name], WINDOW) for name in _WINDOWS if isinstance(fields.get(name), int)}
    changed |= {name: 1 for name in _TOKENS if fields.get(name) is not None}
    sizes = _SIZES if narrow else {"vocab_size": _SIZES["vocab_size"]}
    changed |= {name: min(fields[name], size) for name, size in sizes.items() if isinstance(fields.get(name), int)}
    if narrow:
        changed |= _fewer_heads(config, fields)
    small = type(config).from_dict(fields | changed)
    if hasattr(small, "use_cache"):
        small.use_cache = False
    return small


def _fewer_heads(config: PreTrainedConfig, fields: dict[str, Any]) -> dict[str, Any]:
    heads = fields.get("num_attention_heads")
    if not isinstance(heads, int) or heads <= _HEADS:
        return {}
    kv_heads = fields.get("num_key_value_heads") or heads
    head_dim = getattr(config, "head_dim", None) or fields["hidden_size"] // heads
    fewer_kv = _HEADS if kv_heads == heads else max(1, _HEADS * kv_heads // heads)
    changed = {"num_attention_heads": _HEADS, "hidden_size": _HEADS * head_dim}
    if "num_key_value_heads" in fields:
        changed["num_key_value_heads"] = fewer_kv
    return changed


@torch.no_grad()
def _draw(model: PreTrainedModel) -> None:
    """Weights so large that whatever a layer computes shows in the losses."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 1.2 / parameter.shape[-1] ** 0.5)
        else:
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
