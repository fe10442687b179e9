"""Small LLaMAs as llama.cpp's converter would write them, by the `gguf` package alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONFIG = LlamaConfig(
    vocab_size=400, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.15, bos_token_id=0, eos_token_id=1,
    tie_word_embeddings=False, rope_parameters={"rope_type": "default", "rope_theta": 50_000.0},
)  # fmt: skip
"""As wide as blocks of 32 numbers want it."""
NORMAL, CONTROL = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL


def write_gguf(
    path: Path,
    llm: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast | None = None,
    quantised: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    said: Mapping[str, Any] | None = None,
    tensors: Mapping[str, NDArray | None] | None = None,
    architecture: str = "llama",
) -> Path:
    """Write a model, its matrices quantised.

    Args:
        path: the file to write.
        llm: the model.
        tokenizer: a byte-level BPE, written beside it.
        quantised: how matrices are stored; norms are float32.
        said: keys of the architecture to say beside or instead of the usual ones, None for one that is left out.
        tensors: tensors to write beside or instead of the model's, None for one that is left out.
        architecture: llama.cpp's name of it.
    """
    config = llm.config
    writer = gguf.GGUFWriter(path, architecture)
    usual = {
        "context_length": config.max_position_embeddings,
        "block_count": config.num_hidden_layers,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": config.rope_parameters["rope_theta"],
        "rope.dimension_count": config.hidden_size // config.num_attention_heads,
        "vocab_size": config.vocab_size,
    }
    for key, value in (usual | dict(said or {})).items():
        if value is not None:
            add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, bool: writer.add_bool}
            add[type(value)](f"{architecture}.{key}", value)
    writer.add_file_type(gguf.LlamaFileType[f"{'ALL' if quantised.name == 'F32' else 'MOSTLY'}_{quantised.name}"])
    if tokenizer is not None:
        _write_tokenizer(writer, tokenizer)
    for name, tensor in (_tensors(llm) | dict(tensors or {})).items():
        if tensor is not None:
            kind = quantised if tensor.ndim == 2 else gguf.GGMLQuantizationType.F32
            writer.add_tensor(name, gguf.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(llm: LlamaForCausalLM) -> dict[str, NDArray]:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, llm.config.num_hidden_layers)
    found = {}
    for name, weight in llm.state_dict().items():
        array = weight.float().numpy()
        for part, heads in (("q_proj", llm.config.num_attention_heads), ("k_proj", llm.config.num_key_value_heads)):
            if f".{part}." in name:  # llama.cpp turns neighbours, transformers halves of a head
                array = array.reshape(heads, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        found[names.get_name(name.removesuffix(".weight")) + ".weight"] = np.ascontiguousarray(array)
    return found


def _write_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerFast) -> None:
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    special = set(tokenizer.all_special_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if token in special else NORMAL for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    if tokenizer.eos_token_id is not None:
        writer.add_eos_token_id(tokenizer.eos_token_id)
