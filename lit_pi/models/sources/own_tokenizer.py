"""The tokenizer that a model was trained with, as far as its files tell."""

from pathlib import Path
from types import NoneType
from typing import Any

import yaml

from lit_pi.errors import UserError, shown
from lit_pi.gguf_file import TOKENS, is_gguf, read_header
from lit_pi.models.sources.checkpoint import is_checkpoint, read_content
from lit_pi.models.sources.provenance import KEY

FIT = "fit.yaml"
"""File of a run directory: the configuration that `lit-pi fit` resolved."""
READ: dict[str, tuple[type, ...]] = {
    "model": (dict,),
    "model.llm": (dict,),
    "model.llm.init_args": (dict, NoneType),
    "model.llm.init_args.path": (str, NoneType),
    "model.llm.init_args.size": (str, NoneType),
    "model.train_positions": (dict, NoneType),
    "model.train_positions.init_args": (dict, NoneType),
    "model.train_positions.init_args.target_context": (int, NoneType),
    "data": (dict,),
    "data.context_length": (int,),
    "data.packing": (str,),
    "data.tokenizer": (str, NoneType),
    "data.train": (dict, NoneType),
    "data.train.class_path": (str,),
}
"""Fields that are read of that configuration, and their types."""
FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
"""Files of a Hugging Face directory, any of which makes a tokenizer."""


def own_tokenizer(place: Path, model: str | None = None) -> dict[str, Any]:
    """Record of a model's own tokenizer, as `ModelSource.tokenizer` gives it.

    Args:
        place: a checkpoint, a GGUF file, a Hugging Face directory, or an id on the hub.
        model: the name that the user knows the model by.

    Raises:
        UserError: a file is no checkpoint, or a damaged one.
    """
    found = {"model": model or str(place), "name": str(place), "vocabulary": None, "vocab_size": None}
    if is_checkpoint(place):
        record = read_content(place)[KEY]
        # Checkpoints did not always say.
        before = {"name": fit_of(place).get("data", {}).get("tokenizer")}
        return found | record.get("tokenizer", before) | {"vocab_size": record["config"]["vocab_size"]}
    has_none = TOKENS not in read_header(place).metadata if is_gguf(place) else place.is_dir() and not _files(place)
    return found | ({"name": None} if has_none else {})


def _files(directory: Path) -> bool:
    return any((directory / file).is_file() for file in FILES)


def fit_of(checkpoint: Path) -> dict[str, Any]:
    """The configuration of the `fit` that made a checkpoint; empty where it is not there.

    Raises:
        UserError: the file is something else.
    """
    path = checkpoint.absolute().parents[1] / FIT
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())}): mend or remove it") from error
    if not isinstance(found, dict):
        held = "nothing" if found is None else f"`{shown(found)}`"
        raise UserError(f"{path} holds {held} and no configuration of `lit-pi fit`: mend or remove it")
    for key, kinds in READ.items():
        _check(path, found, key, kinds)
    return found


def _check(path: Path, value: Any, key: str, kinds: tuple[type, ...]) -> None:
    for name in key.split("."):
        if value is None or (name not in value and NoneType in kinds):
            return
        value = value.get(name)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise UserError(f"{path} says `{key}: {shown(value)}`, which `lit-pi fit` does not write: mend or remove it")
