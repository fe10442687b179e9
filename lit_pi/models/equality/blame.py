"""Which fields of a config make a model one that is computed otherwise here."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from transformers import LlamaConfig, PreTrainedConfig

TRIES = 24
"""Configs to try at most, of a twin each: some ten seconds."""

_SIZES = ("num_", "hidden_size", "intermediate_size", "vocab_size", "head_dim", "moe_intermediate")
_WORDS = ("token_id", "architectures", "transformers_version", "initializer", "model_type", "eps", "dropout", "cache")


def fields_to_blame(config: PreTrainedConfig, is_equal: Callable[[PreTrainedConfig], bool]) -> str:
    """Name a field without which the model would be equal; else those that LLaMA's config does not have.

    Args:
        config: the config.
        is_equal: whether a model of another config is computed as stock transformers does.
    """
    fields = config.to_dict()
    for name, value in islice(_without_one(config, fields), TRIES):
        try:
            if is_equal(type(config).from_dict(fields | {name: value})):
                return f"`{name}` {_short(fields[name])}"
        except Exception:  # noqa: S112 - a config or model that cannot be without this field
            continue
    known = LlamaConfig().to_dict().keys()
    own = [name for name in fields if name not in known and fields[name] not in (None, False)]
    named = _names(own[:8]) + (f" and {len(own) - 8} more" if len(own) > 8 else "")
    return f"one of the fields that LLaMA's config does not have ({named or 'its model_type alone'})"


def _without_one(config: PreTrainedConfig, fields: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names of fields and values that switch them off, those first that LLaMA does not have."""
    llama, default = LlamaConfig().to_dict(), type(config)().to_dict()
    names = [name for name in fields if not name.startswith(_SIZES) and not any(word in name for word in _WORDS)]
    for name in sorted(names, key=lambda name: name in llama):
        value = fields[name]
        if isinstance(value, bool):
            yield name, not value
        elif name == "rope_parameters" and isinstance(value, dict) and "rope_theta" in value:
            yield name, {"rope_type": "default", "rope_theta": value["rope_theta"]}
        elif value is not None:
            yield name, default[name] if default.get(name) not in (value, None) else None


def _names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _short(value: Any) -> str:
    text = str(value)
    return f"({text[:60]}{'...' if len(text) > 60 else ''})"
