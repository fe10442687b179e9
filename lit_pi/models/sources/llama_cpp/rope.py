"""Rotary positions of a GGUF file, which llama.cpp reads there and transformers for the most part does not."""

import math
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.integrations.gguf import GgufHeader, load_gguf_state_dict
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lit_pi.errors import UserError
from lit_pi.gguf_file import Header

ALWAYS, LONG, SHORT = DIVISORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors by which frequencies are divided: at every length, beyond the original context, and within it."""
THETA = 10_000.0
"""llama.cpp's base where a file does not say one."""
SCALING = "rope.scaling."
NOTHING = (0, 1, -1)
"""Numbers that leave positions as they are, in those keys of scaling that have no place in a config."""


def put_rope(config: PreTrainedConfig, said: dict[str, Any], header: Header, path: Path) -> None:
    """Let a config rotate as a file says.

    Args:
        config: the config that transformers made of the file, in which the head's size and the context are right.
        said: values of the file's keys without their architecture; those about positions are taken out.
        header: the file's header.
        path: the file.

    Raises:
        UserError: a config cannot say it.
    """
    if not getattr(config, "rope_parameters", None):
        raise _refusal(path, f"holds a model without rotary positions ({config.model_type})")
    # Where layers rotate by their kind, the file's base and scaling are those of full attention.
    parameters = config.rope_parameters.get("full_attention", config.rope_parameters)
    parameters["rope_theta"] = float(said.pop("rope.freq_base", THETA))
    head_dim = head_dim_of(config)
    turned = said.pop("rope.dimension_count", head_dim)
    if "partial_rotary_factor" in parameters:
        parameters["partial_rotary_factor"] = turned / head_dim
    elif turned != head_dim:
        raise _refusal(path, f"turns {turned} of the {head_dim} numbers of a head")
    scaling = {key.removeprefix(SCALING): said.pop(key) for key in list(said) if key.startswith(SCALING)}
    scaling.setdefault("factor", said.pop("rope.scale_linear", 0))
    divisors = {name: _tensor(path, name) for name in DIVISORS if name in header.tensors}
    original = scaling.pop("original_context_length", None)
    if original and hasattr(config, "original_max_position_embeddings"):
        config.original_max_position_embeddings = original
    made = _scaled(config, parameters, scaling, divisors, original or config.max_position_embeddings)
    if made is None or any(value not in NOTHING for value in scaling.values()):
        raise _refusal(path, f"scales its positions by {', '.join([*divisors, *map(str, scaling.items())])}")
    if original and made:
        made.setdefault("original_max_position_embeddings", original)
    parameters |= made


def head_dim_of(config: PreTrainedConfig) -> int:
    """Numbers of a head's query, where a config says them or not."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _scaled(
    config: PreTrainedConfig,
    parameters: Mapping[str, Any],
    scaling: dict[str, Any],
    divisors: Mapping[str, Tensor],
    original: int,
) -> dict[str, Any] | None:
    """Fields of `rope_parameters`, for which what they say is taken out of `scaling`; None where there are none."""
    kind, factor = scaling.pop("type", "linear"), float(scaling.pop("factor"))
    scaling.pop("finetuned", None)
    if LONG in divisors and SHORT in divisors:
        return _longrope(divisors[LONG], divisors[SHORT], original, scaling.pop("attn_factor", 1.0))
    if ALWAYS in divisors and (divisors[ALWAYS] != 1).any():
        return _divided(config, parameters, divisors[ALWAYS], original) if factor in NOTHING else None
    if kind == "none" or factor in NOTHING:
        return {}
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    return _yarn(factor, scaling) if kind == "yarn" else None


def _yarn(factor: float, scaling: dict[str, Any]) -> dict[str, Any]:
    made = {"rope_type": "yarn", "factor": factor}
    # llama.cpp multiplies the method's own attention factor by these.
    attention = scaling.pop("attn_factor", 1.0) * scaling.pop("yarn_attn_factor", 1.0)
    if attention != 1:
        made["attention_factor"] = attention * (0.1 * math.log(factor) + 1)
    return made | {
        name: scaling.pop(f"yarn_{name}") for name in ("beta_fast", "beta_slow") if f"yarn_{name}" in scaling
    }


def _longrope(long: Tensor, short: Tensor, original: int, attention: float) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "long_factor": long.tolist(),
        "short_factor": short.tolist(),
        "original_max_position_embeddings": original,
        "attention_factor": attention,
    }


def _divided(
    config: PreTrainedConfig, parameters: Mapping[str, Any], divisors: Tensor, original: int
) -> dict[str, Any]:
    """The `llama3` type, of which a file holds the divisors alone, if any context gives these; else they themselves."""
    plain = parameters["rope_theta"] ** -(torch.arange(len(divisors)) / len(divisors))
    asked = deepcopy(config)
    for context in (original >> halved for halved in range(original.bit_length())):
        made = {
            "rope_type": "llama3",
            "factor": float(divisors.max()),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": context,
        }
        asked.rope_parameters = {**parameters, **made}
        inv_freq, _ = ROPE_INIT_FUNCTIONS["llama3"](asked, torch.device("cpu"))
        if inv_freq.shape == divisors.shape and torch.allclose(plain / inv_freq, divisors, rtol=1e-4):
            return made
    return _longrope(divisors, divisors, original, 1.0)


def _tensor(path: Path, name: str) -> Tensor:
    try:
        return load_gguf_state_dict(GgufHeader.from_file(str(path)))[name][...].float()
    except ValueError as error:
        raise _refusal(path, f"has {name} beside weights of a type that hides where it is ({error})") from error


def _refusal(path: Path, what: str) -> UserError:
    return UserError(f"{path} {what}, which cannot be read from it: bring the model as a Hugging Face directory")
