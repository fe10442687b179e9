"""Weights on disk, read one by one: of Hugging Face directories, and of checkpoints that ranks wrote in shards."""

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader, load
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

META = "meta.pt"
"""File of a sharded checkpoint: everything but weights and optimizer."""


class Stored(Mapping[str, Tensor]):
    """Tensors by name, each read from disk when it is asked for.

    Args:
        names: names of the tensors.
        read: reads the tensor of a name.
    """

    def __init__(self, names: Iterable[str], read: Callable[[str], Tensor]) -> None:
        self._names = dict.fromkeys(names)
        self._read = read

    def __getitem__(self, name: str) -> Tensor:
        """Read a tensor."""
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        """The names, of which nothing is read."""
        return iter(self._names)

    def __len__(self) -> int:
        """The number of tensors."""
        return len(self._names)


class Shards:
    """A checkpoint whose ranks wrote a shard each (torch's distributed checkpoint), read by any process alone.

    Args:
        path: the checkpoint's folder.
    """

    def __init__(self, path: Path) -> None:
        self._reader = _Reader(path)
        self._entries = self._reader.metadata.state_dict_metadata

    def weights(self, prefix: str) -> Stored:
        """The tensors whose names begin with a prefix, whole, by the rest of their names."""
        names = [name.removeprefix(prefix) for name in self._entries if name.startswith(prefix)]
        return Stored(names, lambda name: self._load([prefix + name])[prefix + name])

    def everything(self, prefix: str) -> dict[str, Any]:
        """All whose names begin with a prefix, by the rest of their names: whole tensors, and what else there is."""
        found = self._load(name for name in self._entries if name.startswith(prefix))
        return {name.removeprefix(prefix): value for name, value in found.items()}

    def _load(self, names: Iterable[str]) -> dict[str, Any]:
        state: dict[str, Any] = {}
        for name in names:
            entry = self._entries[name]
            if isinstance(entry, TensorStorageMetadata):
                state[name] = torch.empty(entry.size, dtype=entry.properties.dtype)
            else:
                state[name] = None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            load(state, storage_reader=self._reader, no_dist=True)
        return state


class _Reader(FileSystemReader):
    """torch's reader, which reads once what the folder holds, and not for each weight."""

    @cached_property
    def metadata(self) -> Metadata:
        return super().read_metadata()

    def read_metadata(self, *args: Any, **options: Any) -> Metadata:
        return self.metadata


def is_sharded(path: Path) -> bool:
    """Whether a folder is a checkpoint of shards."""
    return (path / ".metadata").is_file() and (path / META).is_file()


def safetensors_of(model: str) -> Stored | None:
    """Weights of a Hugging Face directory or hub id, if they are there as safetensors."""
    if (index := _file(model, SAFE_WEIGHTS_INDEX_NAME)) is not None:
        places = json.loads(Path(index).read_text())["weight_map"]
    elif (file := _file(model, SAFE_WEIGHTS_NAME)) is not None:
        with safe_open(file, "pt") as content:
            places = dict.fromkeys(content.keys(), SAFE_WEIGHTS_NAME)
    else:
        return None
    files = {name: _file(model, name) for name in set(places.values())}

    def read(name: str) -> Tensor:
        # Files that stayed open would be held in memory as far as they were read.
        with safe_open(files[places[name]], "pt") as content:
            return content.get_tensor(name)

    return Stored(places, read)


def _file(model: str, name: str) -> str | None:
    return cached_file(model, name, _raise_exceptions_for_missing_entries=False)
