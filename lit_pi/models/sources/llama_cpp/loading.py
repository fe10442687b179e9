"""Models out of GGUF files, as transformers reads them; what it would drop is put back, or the file is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig, PreTrainedConfig, PreTrainedModel
from transformers.integrations import GGUF_CONFIG_MAPPING
from transformers.integrations.gguf import GGUF_ARCHS
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

from lit_pi.errors import UserError
from lit_pi.gguf_file import Header, read_header
from lit_pi.models.attention.attend import ATTENTION
from lit_pi.models.sources.llama_cpp.rope import DIVISORS, head_dim_of, put_rope

NEEDED = (
    "context_length",
    "block_count",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",  # without it transformers leaves queries and keys in llama.cpp's order
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
)
"""Keys instead of which transformers would take a number of its own, each of the architectures that have it."""
WINDOW = "attention.sliding_window"
FIELDS = {
    "attention.key_length": "head_dim",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
"""Fields of a config that a file tells of, whether transformers reads them there or not."""
SPECIAL = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "padding_token_id": "pad_token_id"}
"""Fields of a config by the keys of the file's tokenizer."""


def gguf_config(path: Path) -> PreTrainedConfig:
    """The config of a GGUF file's model, with its positions, windows and special tokens.

    Raises:
        UserError: the file is damaged, transformers cannot read it, or it says what transformers does not know.
    """
    header = read_header(path)
    try:
        config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    except Exception as error:  # whatever a stranger's file makes of a reader
        raise _unreadable(path, header, error) from error
    for key, field in SPECIAL.items():
        setattr(config, field, header.metadata.get(f"tokenizer.ggml.{key}"))
    if header.architecture not in GGUF_ARCHS:  # those whose reader takes everything there is
        _complete(config, header, path)
    return config


def load_gguf(path: Path, keep_dtype: bool) -> PreTrainedModel:
    """The model of a GGUF file, its weights dequantised.

    Args:
        path: the file.
        keep_dtype: build it in the dtype that it is stored in, float32 where it is quantised; not in torch's default.

    Raises:
        UserError: as `gguf_config`, or weights are missing or left over.
    """
    header, config = read_header(path), gguf_config(path)
    dtype = header.dtype or torch.float32 if keep_dtype else torch.get_default_dtype()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            config=config,
            local_files_only=True,
            dtype=dtype,
            attn_implementation=ATTENTION,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
        llm, found = loaded
        names = {} if header.architecture in GGUF_ARCHS else get_gguf_hf_weights_map(llm, _processor(header, config))
    except Exception as error:
        raise _unreadable(path, header, error) from error
    left_over = {name for name in header.tensors if name not in names and name not in DIVISORS} if names else set()
    for what, keys in (("lacks", found["missing_keys"]), ("has", {*found["unexpected_keys"], *left_over})):
        if keys:
            where = "which the model needs" if what == "lacks" else "which transformers does not read"
            raise UserError(f"{path} {what} {', '.join(sorted(keys)[:5])}, {where}: bring the model in another format")
    for name, stored, wanted in sorted({*found["mismatched_keys"], *_taken_in_another_shape(llm)}):
        raise UserError(
            f"{path} has a {name} of {list(stored)} numbers, and by what it says of its sizes that has {list(wanted)}: "
            "bring it again"
        )
    llm.config._name_or_path = str(path)
    if header.dtype is None:
        rank_zero_info(f"{header.quantisation} weights of {path}, dequantised to {str(dtype).removeprefix('torch.')}")
    return llm


def _taken_in_another_shape(llm: PreTrainedModel) -> Iterator[tuple[str, torch.Size, torch.Size]]:
    """Weights, their shapes and those by the config: transformers 5.17 takes any without a word."""
    with torch.device("meta"):
        wanted = type(llm)(llm.config).state_dict()
    for name, weight in llm.state_dict().items():
        if name in wanted and weight.shape != wanted[name].shape:
            yield name, weight.shape, wanted[name].shape


def _processor(header: Header, config: PreTrainedConfig) -> TensorProcessor:
    return TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)(config=config.to_dict())


def _complete(config: PreTrainedConfig, header: Header, path: Path) -> None:
    """Put into a config what the file says and transformers leaves out.

    Raises:
        UserError: something is missing there, or has no place in the config.
    """
    prefix = f"{header.architecture}."
    said = {key.removeprefix(prefix): value for key, value in header.metadata.items() if key.startswith(prefix)}
    mappings: Any = GGUF_CONFIG_MAPPING
    read = mappings.get(config.model_type.removesuffix("_text"), {})
    for key in NEEDED:
        if key in read and key not in said:
            raise UserError(f"{path} does not say `{prefix}{key}`, which the model needs: bring it in another format")
    for key, field in FIELDS.items():
        if hasattr(config, field) and key in said:
            setattr(config, field, said.pop(key))
    kinds = getattr(config, "layer_types", None)
    if hasattr(config, "sliding_window") and (not kinds or "sliding_attention" in kinds):
        config.sliding_window = said.pop(WINDOW, None if not kinds else config.sliding_window)
    put_rope(config, said, header, path)
    if getattr(config, "query_pre_attn_scalar", head_dim_of(config)) != head_dim_of(config):  # of Gemma's largest
        raise UserError(f"{path} does not say how attention is scaled: bring the model as a Hugging Face directory")
    for key, value in said.items():
        if key not in read and not _changes_nothing(key, value, config):
            raise UserError(
                f"{path} says `{prefix}{key}` {value}, which transformers does not read there, and without which it is "
                "another model: bring it as a Hugging Face directory"
            )


def _changes_nothing(key: str, value: Any, config: PreTrainedConfig) -> bool:
    """Whether a model is the same without a key: of other architectures, or what it is anyway."""
    anyway = {
        "attention.causal": True,
        "attention.key_length": head_dim_of(config),
        "attention.value_length": head_dim_of(config),
        "embedding_scale": 1.0,
        "logit_scale": 1.0,
        "residual_scale": 1.0,
    }
    return not value or key == "tensor_data_layout" or value == anyway.get(key)


def _unreadable(path: Path, header: Header, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".:")
    return UserError(
        f"transformers cannot read the model of architecture {header.architecture} in {path} ({reason}): bring it as a "
        "Hugging Face directory"
    )
