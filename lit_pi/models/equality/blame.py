"""Which fields of a config make a model one that is computed otherwise here."""

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from transformers import LlamaConfig, PreTrainedConfig

from lit_pi.positions.by_layer import of_kinds

TRIES, SECONDS = 24, 10.0
"""Configs to try at most, of a twin each, and how long after the first no other one is tried."""

_SIZES = ("num_", "hidden_size", "intermediate_size", "vocab_size", "head_dim", "moe_intermediate")
_WORDS = ("token_id", "architectures", "transformers_version", "initializer", "model_type", "eps", "dropout", "cache")


def fields_to_blame(config: PreTrainedConfig, is_equal: Callable[[PreTrainedConfig], bool]) -> str:
    """Name a field without which the model would be equal; else those that LLaMA's config does not have.

    Args:
        config: the config.
        is_equal: whether a model of another config is computed as stock transformers does.
    """
    fields = config.to_dict()
    end = time.monotonic() + SECONDS
    for name, value in islice(_without_one(config, fields), TRIES):
        if time.monotonic() > end:
            break
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
    """Names of fields and values that switch them off: that of positions, then those that LLaMA does not have."""
    llama, default = LlamaConfig().to_dict(), type(config)().to_dict()
    names = [name for name in fields if not name.startswith(_SIZES) and not any(word in name for word in _WORDS)]
    for name in sorted(names, key=lambda name: (name != "rope_parameters", name in llama)):
        value = fields[name]
        if isinstance(value, bool):
            yield name, not value
        elif name == "rope_parameters" and isinstance(value, dict):
            kinds = {kind: _plain(each) for kind, each in of_kinds(value).items() if each is not None}
            yield name, kinds or _plain(value)
        elif value is not None:
            yield name, default[name] if default.get(name) not in (value, None) else None


def _plain(rope_parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the same base without any stretching."""
    return {"rope_type": "default"} | {name: rope_parameters[name] for name in rope_parameters if name == "rope_theta"}


def _names(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _short(value: Any) -> str:
    text = str(value)
    return f"({text[:60]}{'...' if len(text) > 60 else ''})"
