"""The seal of an exported model: a file in its directory, by which the others are known to be what was exported."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from zlib_ng.zlib_ng import crc32

from lit_pi.errors import UserError
from lit_pi.files import as_text, check_fetched, file_checksum, read_sealed, write_sealed

NAME = "lit_pi_seal.json"
"""File of an exported directory: size and CRC-32 of the others, and of those that hold weights a CRC-32 each of their
header and their tensors, which are checked as they are read."""
WEIGHTS = ("*.safetensors", "*.bin", "*.index.json")
"""Names under which transformers looks for weights."""
DESCRIPTION = (
    *("*config.json", "tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt"),
    *("*.model", "*.tiktoken", "*.jinja", "additional_chat_templates/*.jinja"),
)
"""Names of what else it reads unasked: who lays such a file beside a model changes what it computes."""


def write_seal(directory: Path, unsealed: str) -> None:
    """Seal all files of a directory but one.

    Args:
        directory: an exported model, whole.
        unsealed: name of a file that is for people, who edit it.

    Raises:
        OSError: a file cannot be read, or the seal not written.
    """
    files = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()}
    files.pop(unsealed, None)
    write_sealed(directory / NAME, {"files": {name: _entry(path) for name, path in files.items()}})


def _entry(path: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"size": path.stat().st_size, "crc32": file_checksum(path)}
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as content:
            entry["header"] = _header_checksum(path)
            entry["tensors"] = {name: _checksum(content.get_tensor(name)) for name in content.keys()}  # noqa: SIM118
    return entry


def _checksum(tensor: Tensor) -> str:
    return as_text(crc32(tensor.reshape(-1).view(torch.uint8).numpy()) if tensor.numel() else 0)


def _header_checksum(path: Path) -> str:
    """The CRC-32 of what says of a file of safetensors which tensors it holds."""
    with path.open("rb") as file:
        length = file.read(8)
        return as_text(crc32(length + file.read(min(int.from_bytes(length, "little"), path.stat().st_size))))


class Seal:
    """The seal of a directory; files that it does not know are anybody's, if transformers does not read their like.

    Args:
        directory: the directory of a model, or anything else, which has no seal.

    Raises:
        UserError: it is damaged itself.
    """

    def __init__(self, directory: Path) -> None:
        self._directory, self._seal = directory, directory / NAME
        try:
            self._files = _files_in(self._content()) if os.path.lexists(self._seal) else {}
        except ValueError as error:
            raise UserError(
                f"{self._seal} says whether the files beside it are what was exported, and is damaged ({error}): "
                "export the model again, or remove it"
            ) from error

    def _content(self) -> dict[str, Any]:
        if not self._seal.is_file():
            raise ValueError("it is no file")
        return read_sealed(self._seal)

    def check_description(self) -> None:
        """Check all files but those of weights.

        Raises:
            UserError: one is missing, added, or not what was exported.
        """
        for name, entry in self._files.items():
            if "tensors" not in entry:
                self._check_file(name, entry)
        self._check_added(DESCRIPTION)

    def check_weights(self) -> None:
        """Check that the files of weights are there and no others, in their size, with the tensors they had.

        Raises:
            UserError: one is missing, added, or not what was exported.
        """
        for name, entry in self._files.items():
            if "tensors" in entry:
                self._check_size(name, entry)
                if _header_checksum(self._directory / name) != entry.get("header"):
                    raise self._changed(name, "its header has another checksum")
        self._check_added(WEIGHTS)

    def check_tensor(self, file: str, name: str, tensor: Tensor) -> None:
        """Check a tensor that was read from a file of weights.

        Raises:
            UserError: it is not what was exported.
        """
        entry = self._files.get(file)
        if entry is not None and entry.get("tensors", {}).get(name) != _checksum(tensor):
            raise self._changed(file, f"{name} in it has another checksum")

    def check_all(self) -> None:
        """Check all files whole.

        Raises:
            UserError: one is missing, added, or not what was exported.
        """
        for name, entry in self._files.items():
            self._check_file(name, entry)
        self._check_added(WEIGHTS + DESCRIPTION)

    def _check_added(self, patterns: Iterable[str]) -> None:
        if not self._files:
            return
        found = {path for pattern in patterns for path in self._directory.glob(pattern) if path.is_file()}
        names = {path.relative_to(self._directory).as_posix() for path in found if not path.name.startswith(".")}
        for name in sorted(names - {NAME} - self._files.keys()):
            raise self._changed(name, "it was added")

    def _check_file(self, name: str, entry: Mapping[str, Any]) -> None:
        self._check_size(name, entry)
        if file_checksum(self._directory / name) != entry["crc32"]:
            raise self._changed(name, "it has another checksum")

    def _check_size(self, name: str, entry: Mapping[str, Any]) -> None:
        file = self._directory / name
        if not file.is_file():
            raise self._changed(name, "it is missing")
        if (size := file.stat().st_size) != entry["size"]:
            check_fetched(file)
            raise self._changed(name, f"it has {size:,} bytes and not {entry['size']:,}")

    def _changed(self, name: str, how: str) -> UserError:
        return UserError(
            f"{self._directory / name} is not what was exported ({how}): export the model again, or, if that was done "
            f"on purpose, remove {self._seal}"
        )


def _files_in(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    files = content.get("files")
    if not isinstance(files, dict) or not all(
        isinstance(entry, dict)
        and isinstance(entry.get("size"), int)
        and "crc32" in entry
        and isinstance(entry.get("tensors", {}), dict)
        for entry in files.values()
    ):
        raise ValueError("it does not say what a seal says")
    if not any("tensors" in entry for entry in files.values()):
        raise ValueError("it knows no weights")
    return files
