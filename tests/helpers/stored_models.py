"""Tiny models on disk, in the ways they are stored, and `Pretrained`'s ways of loading them."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint import save
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig, PreTrainedModel

from lit_pi.models import FromScratch, LanguageModel, Pretrained
from lit_pi.models.sources.checkpoint import model_record
from lit_pi.models.sources.provenance import KEY
from lit_pi.models.sources.stored import META, SEALS, seals_of
from lit_pi.positions import Interpolate

FIELDS = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 16, "initializer_range": 0.2,
}  # fmt: skip
WEIGHT = "model.layers.1.mlp.up_proj.weight"
"""One of them, 24 x 16."""
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4665a5ea423c2713d436b5ee50593a9640e0018c1550b5a0\n"

Weights = dict[str, Tensor]


def at_once(path: Path) -> PreTrainedModel:
    return Pretrained(str(path)).build()[0]


def by_module(path: Path) -> PreTrainedModel:
    llm, _, fill = Pretrained(str(path)).lazily(torch.device("cpu"))
    return llm.apply(fill)


WAYS = [at_once, by_module]


def save_models(folder: Path) -> None:
    """Directories `plain`, `tied` and `experts`, and `shards` with a file a weight, more or less."""
    torch.manual_seed(0)
    plain = LlamaConfig(**FIELDS)
    AutoModelForCausalLM.from_config(plain).save_pretrained(folder / "plain")
    AutoModelForCausalLM.from_config(plain).save_pretrained(folder / "shards", max_shard_size="3KB")
    tied = LlamaConfig(**FIELDS, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(tied).save_pretrained(folder / "tied")
    experts = MixtralConfig(**FIELDS, num_local_experts=4, pad_token_id=None)
    AutoModelForCausalLM.from_config(experts).save_pretrained(folder / "experts")


def rewritten(model: Path, to: Path, change: Callable[[Weights], Weights] = dict, **fields: object) -> Path:
    """A copy of a directory of one file, with other weights or fields of its config."""
    shutil.copytree(model, to)
    save_file(change(load_file(to / "model.safetensors")), to / "model.safetensors", {"format": "pt"})
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config | fields))
    return to


def save_checkpoint(to: Path, change: Callable[[Weights], Weights] = dict, sharded: bool = False) -> Path:
    """A checkpoint as `lit-pi fit` writes it, a file or a folder of shards, without optimizer."""
    torch.manual_seed(0)
    llm, rope = FromScratch(config=FIELDS).build()
    model = LanguageModel(llm, Interpolate(scale=2), rope)
    weights = change({f"model.{name}": weight for name, weight in model.state_dict().items()})
    content = {KEY: model_record(model), "global_step": 1}
    if sharded:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            save({"state_dict": weights}, checkpoint_id=to, no_dist=True)
        torch.save(content | {SEALS: seals_of(to)}, to / META)
    else:
        torch.save(content | {"state_dict": weights}, to)
    return to
