"""The tokenizer that a model was trained with, as far as its files tell."""

from pathlib import Path
from typing import Any

import yaml

from lit_pi.errors import UserError
from lit_pi.gguf_file import TOKENS, is_gguf, read_header
from lit_pi.models.sources.checkpoint import is_checkpoint, read_content
from lit_pi.models.sources.provenance import KEY

FIT = "fit.yaml"
"""File of a run directory: the configuration that `lit-pi fit` resolved."""
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
    """The configuration of the `fit` that made a checkpoint; empty where it is not there."""
    path = checkpoint.absolute().parents[1] / FIT
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())}): mend or remove it") from error
    return found if isinstance(found, dict) else {}
