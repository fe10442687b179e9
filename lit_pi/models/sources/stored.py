"""Weights on disk, read one by one, as of checkpoints that ranks wrote in shards."""

import io
import pickle
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader, load
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem
from torch.futures import Future
from zlib_ng.zlib_ng import crc32

from lit_pi.errors import UserError
from lit_pi.files import as_text, check_fetched, file_checksum
from lit_pi.models.archive import Archive, content_of

META = "meta.pt"
"""File of a sharded checkpoint: everything but weights and optimizer."""
METADATA = ".metadata"
"""File of a sharded checkpoint: where in which shard each weight and each state of the optimizer is."""
SEALS = "shards"
"""In `META`: what `seals_of` says of the other files."""
LIST_BYTES = 4096
"""Bytes at the end of an archive that hold its list of records, with their checksums."""

_HELD = {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
}
"""Other things that `.metadata` names, beside the classes of torch's description and dtypes."""


class Stored(Mapping[str, Tensor]):
    """Tensors by name, each read from disk when it is asked for.

    Args:
        like: tensors without data (on the meta device) of the same names, shapes and dtypes.
        read: reads the tensor of a name.
    """

    def __init__(self, like: Mapping[str, Tensor], read: Callable[[str], Tensor]) -> None:
        self.like = like
        self._read = read

    def renamed(self, names: Mapping[str, str]) -> "Stored":
        """The tensors by other names, each with the one it has here."""
        return Stored({new: self.like[old] for new, old in names.items()}, lambda name: self[names[name]])

    def __getitem__(self, name: str) -> Tensor:
        """Read a tensor."""
        if name not in self.like:
            raise KeyError(name)
        return self._read(name)

    def __contains__(self, name: object) -> bool:
        """Whether there is a tensor of this name, which is not read."""
        return name in self.like

    def __iter__(self) -> Iterator[str]:
        """The names, of which nothing is read."""
        return iter(self.like)

    def __len__(self) -> int:
        """The number of tensors."""
        return len(self.like)


class Shards:
    """A checkpoint whose ranks wrote a shard each (torch's distributed checkpoint), read by any process alone.

    That its files belong together is checked at once; what they hold is when it is read.

    Args:
        path: the checkpoint's folder.
        seals: what `seals_of` said of the folder when it was written.

    Raises:
        UserError: what it says of its shards cannot be read, or one of them is not what was written.
    """

    def __init__(self, path: Path, seals: Mapping[str, str]) -> None:
        self._path = path
        self._reader = _Reader(path)
        try:
            self._entries = self._reader.metadata.state_dict_metadata
        except Exception as error:  # of a pickle that is damaged, or no pickle, or one of something else
            raise UserError(
                f"{path} is not a checkpoint of lit_pi, or a damaged one: its .metadata cannot be read ({error})"
            ) from error
        try:
            found = seals_of(path)
        except (OSError, ValueError) as error:
            raise self._damaged(error) from error
        for name in sorted(found.keys() | seals.keys()):
            if found.get(name) != seals.get(name):
                raise self._damaged(f"{name} is not what was written with the others, by its checksum")

    def check(self, prefixes: tuple[str, ...], rank: int = 0, ranks: int = 1) -> None:
        """Check what is stored under names that begin with one of several prefixes.

        Args:
            prefixes: beginnings of names.
            rank: number of this process.
            ranks: processes that check a part each.

        Raises:
            UserError: something of it is not what was written.
        """
        stored = [index for index in self._reader.metadata.storage_data if index.fqn.startswith(prefixes)]
        for index in stored[rank::ranks]:
            try:
                self._reader.check(index)
            except (OSError, ValueError) as error:
                raise self._damaged(error) from error

    def weights(self, prefix: str) -> Stored:
        """The tensors whose names begin with a prefix, whole, by the rest of their names.

        Raises:
            UserError: one is no tensor.
        """
        like = {}
        for name, entry in self._entries.items():
            if not name.startswith(prefix):
                continue
            if not isinstance(entry, TensorStorageMetadata):
                raise UserError(f"{self._path} is not a checkpoint of lit_pi: {name} in it is no tensor")
            like[name.removeprefix(prefix)] = torch.empty(entry.size, dtype=entry.properties.dtype, device="meta")
        return Stored(like, lambda name: self._load([prefix + name])[prefix + name])

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
            try:
                load(state, storage_reader=self._reader, planner=_Planner(), no_dist=True)
            except CheckpointException as error:  # no `Exception`
                (reason, _), *_ = error.failures.values()
                raise self._damaged(reason) from error
        return state

    def _damaged(self, reason: object) -> UserError:
        for shard in self._path.glob("*.distcp"):
            check_fetched(shard)
        return UserError(f"a shard of {self._path} is missing or damaged ({reason}): copy it again")


def seals_of(path: Path) -> dict[str, str]:
    """Checksums by which the files of a sharded checkpoint are known to belong together, without reading them whole.

    That of a shard is over the ends of the archives in it, where the checksums of all their records stand.

    Args:
        path: the checkpoint's folder.

    Raises:
        OSError: a file is missing or cannot be read.
        ValueError: a file is too short.
    """
    reader, checksums = _Reader(path), defaultdict[str, int](int)
    for place in sorted(reader.metadata.storage_data.values(), key=lambda place: (place.relative_path, place.offset)):
        end = reader.content(place)[-LIST_BYTES:]
        checksums[place.relative_path] = crc32(end, checksums[place.relative_path])
    seals = {name: as_text(checksum) for name, checksum in checksums.items()}
    return seals | {METADATA: file_checksum(path / METADATA)}


class _Reader(FileSystemReader):
    """torch's reader, which reads once what the folder holds, and not for each weight, and runs nothing of it.

    What it reads is what was written, by its checksums.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._shards: dict[str, memoryview] = {}
        self._intact: set[MetadataIndex] = set()

    def content(self, place: _StorageInfo) -> memoryview:
        """The archive at a place in a shard."""
        if (name := place.relative_path) not in self._shards:
            self._shards[name] = content_of(Path(self.path) / name)
        found = self._shards[name][place.offset : place.offset + place.length]
        if len(found) != place.length:
            raise ValueError(f"{name} is too short")
        return found

    def check(self, index: MetadataIndex) -> None:
        """Check what is stored there, once."""
        if index not in self._intact:
            place = self.metadata.storage_data[index]
            try:
                Archive(self.content(place)).check_tensors()
            except ValueError as error:
                raise ValueError(f"{index.fqn} in {place.relative_path}: {error}") from error
            self._intact.add(index)

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        for item in plan.items:
            self.check(item.storage_index)
        return super().read_data(plan, planner)

    @cached_property
    def metadata(self) -> Metadata:
        with (Path(self.path) / METADATA).open("rb") as file:
            metadata = _Unpickler(file).load()
        for place in metadata.storage_data.values():
            if PurePath(place.relative_path).name != place.relative_path:
                raise ValueError(f"its shard {place.relative_path} lies elsewhere")
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata

    def read_metadata(self, *args: Any, **options: Any) -> Metadata:
        return self.metadata


class _Planner(DefaultLoadPlanner):
    """torch's planner, which unpickles data and nothing else."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        self.original_state_dict[read_item.dest_index.fqn] = torch.load(value, weights_only=True)


class _Unpickler(pickle.Unpickler):
    """Makes the objects by which torch's distributed checkpoints say what they hold, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "pathlib" and name in {"PosixPath", "WindowsPath"}:
            return PurePath
        found = getattr(sys.modules.get(module), name, None)
        described = isinstance(found, type) and found.__module__ == module == Metadata.__module__
        if described or (module, name) in _HELD or (module == "torch" and isinstance(found, torch.dtype)):
            return found
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def is_sharded(path: Path) -> bool:
    """Whether a folder is a checkpoint of shards."""
    return (path / METADATA).is_file() and (path / META).is_file()
