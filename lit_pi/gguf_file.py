"""Headers of GGUF files, llama.cpp's format of a model with its tokenizer in one file."""

import struct
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers.integrations.gguf import GgufHeader, read_gguf_metadata
from transformers.utils import is_gguf_available

from lit_pi.errors import UserError
from lit_pi.files import check_fetched

SUFFIX = ".gguf"
TOKENS = "tokenizer.ggml.tokens"
"""Key of the vocabulary."""
_DAMAGE = (ValueError, TypeError, struct.error, ArithmeticError, MemoryError)
"""Errors of a reader that meets bytes which no writer of the format has written."""


class Header(NamedTuple):
    """The part of a GGUF file before its weights.

    Attributes:
        architecture: llama.cpp's name of it.
        metadata: values by their keys; of lists of texts only how many there are.
        tensors: names of the weights.
        dtype: the dtype of the weights, None where they are quantised.
    """

    architecture: str
    metadata: dict[str, Any]
    tensors: tuple[str, ...]
    dtype: torch.dtype | None

    @property
    def quantisation(self) -> str:
        """The kind of number that most weights are stored as, for example `Q4_1`."""
        from gguf import LlamaFileType

        try:
            return LlamaFileType(self.metadata["general.file_type"]).name.split("_", 1)[1]
        except (KeyError, ValueError):
            return "quantised"


def is_gguf(path: Path) -> bool:
    """Whether a path is the name of a GGUF file, which need not be there."""
    return path.suffix.lower() == SUFFIX


def read_header(path: Path) -> Header:
    """The header of a GGUF file, of which no weight is read.

    Raises:
        UserError: there is no such file, it is damaged or a part of a model, or the package that reads it is missing.
    """
    if not path.is_file():
        raise UserError(f"there is no GGUF file {path}: name an existing one")
    check_fetched(path)
    if not is_gguf_available():
        raise UserError(f"{path} is read with the package `gguf`, which is not installed: pip install 'lit_pi[gguf]'")
    try:
        metadata, tensors = read_gguf_metadata(str(path))
    except _DAMAGE as error:
        raise UserError(f"{path} is no whole GGUF file ({_reason(error)}): bring it again") from error
    if metadata.get("split.count", 1) != 1:
        raise UserError(f"{path} is a part of a model: join all parts with llama.cpp's `llama-gguf-split --merge`")
    return Header(str(metadata["general.architecture"]), metadata, tensors, _dtype_of_whole(path))


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "a text in it is not UTF-8"
    return str(error) if isinstance(error, ValueError) else "it ends before all that its header announces"


def _dtype_of_whole(path: Path) -> torch.dtype | None:
    """The dtype of the weights, None where they are quantised, if the file is as long as it says."""
    try:
        header = GgufHeader.from_file(str(path))
    except _DAMAGE:
        return None  # quantised in a way whose size is known only to `gguf`, which reads the weights
    end = max((header.data_start + tensor.offset + tensor.nbytes for tensor in header.tensors), default=0)
    if end > (size := path.stat().st_size):
        raise UserError(f"{path} is cut short ({size:,} bytes of {end:,}): bring it again")
    return header.dtype
