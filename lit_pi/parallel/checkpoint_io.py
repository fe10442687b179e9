"""Checkpoints that are whole or absent: one file, or a folder with a shard of each rank."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.distributed import ProcessGroup, get_rank, new_group
from torch.distributed.checkpoint import async_save, save

from lit_pi.files import beside, partial_of, put, remove
from lit_pi.models.sources.checkpoint import read_content, read_whole, shards_of
from lit_pi.models.sources.stored import META, SEALS, is_sharded, seals_of


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, syncs it to disk and renames it.

    Lightning moves files over from the temporary folder instead, which a kill can leave half done when that folder is
    on another file system, and writes shards into their place.

    Args:
        in_background: write while training goes on, from a copy in the CPU's memory; the next checkpoint waits for it.
    """

    def __init__(self, in_background: bool = False) -> None:
        self.in_background = in_background
        self._writer = ThreadPoolExecutor(max_workers=1)
        self._pending: list[Future[Any]] = []
        self._group: ProcessGroup | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Save `checkpoint` at `path`; until the rename nobody sees a file there."""
        self._wait()
        self._do(_write, self._kept(checkpoint), Path(path))

    def save_shards(self, shards: dict[str, Any], rest: dict[str, Any], path: Path) -> None:
        """Save a checkpoint at `path`, a folder; all ranks call this.

        Args:
            shards: each rank's own weights and optimizer states.
            rest: the part of the checkpoint that is the same on all ranks.
            path: the folder, which nobody sees before it is whole.
        """
        self._wait()
        partial = partial_of(path)
        if not self.in_background:
            save(shards, checkpoint_id=partial)
        else:
            # Ranks meet apart from training, whose messages theirs would otherwise be taken for.
            self._group = self._group or new_group(backend="gloo")
            written = async_save(shards, checkpoint_id=partial, process_group=self._group)
            assert isinstance(written, Future)
            self._pending.append(written)
        if get_rank() == 0:
            self._do(_complete, [*self._pending], self._kept(rest), partial, path)

    def load_checkpoint(self, path: str | Path, *arguments: Any, **options: Any) -> dict[str, Any]:
        """A checkpoint as one process saves it, put together if it is in shards; nothing of it is unpickled unseen.

        Raises:
            UserError: it is no checkpoint of lit_pi, or not what was written.
        """
        if not is_sharded(Path(path)):
            content = read_whole(Path(path), optimizers=1)
            weights = content.pop("state_dict")  # which are copied into the model; others stay, apart from the file
            return apply_to_collection(content, Tensor, torch.clone) | {"state_dict": weights}
        content = read_content(Path(path))
        shards = shards_of(Path(path), content)
        return content | {
            "state_dict": shards.everything("state_dict."),
            "optimizer_states": [_by_number(shards.everything("optimizer_0."))],
        }

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint, after those that are still to be written."""
        self._do(remove, Path(path))

    def teardown(self) -> None:
        """Wait for what is still to be written."""
        self._wait()

    def _do(self, work: Callable[..., None], *arguments: Any) -> None:
        if self.in_background:
            self._pending.append(self._writer.submit(work, *arguments))
        else:
            work(*arguments)

    def _kept(self, content: dict[str, Any]) -> dict[str, Any]:
        """A copy that training does not change any more, where it goes on meanwhile."""
        if not self.in_background:
            return content
        return apply_to_collection(content, Tensor, lambda tensor: tensor.detach().to("cpu", copy=True))

    def _wait(self) -> None:
        pending, self._pending = self._pending, []
        for work in pending:
            work.result()


def _write(content: dict[str, Any], path: Path) -> None:
    with beside(path) as partial:
        _save(content, partial)


def _complete(written: list[Future[Any]], rest: dict[str, Any], partial: Path, path: Path) -> None:
    """Give a folder of shards its place. Rank 0's are only done when those of all ranks are."""
    for shards in written:
        shards.result()
    _save(rest | {SEALS: seals_of(partial)}, partial / META)
    remove(path)
    put(partial, path)


def _save(content: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:  # of a path alone, torch would not say that the disk is full
        torch.save(content, file)


def _by_number(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state with numbers of parameters as keys, as torch saves it, from flat names as shards have."""
    groups: dict[int, dict[str, Any]] = {}
    for name, value in state.items():
        if name.startswith("param_groups."):
            number, field = name.removeprefix("param_groups.").split(".", 1)
            groups.setdefault(int(number), {})[field] = value
    numbers: dict[str, int] = {}
    for _, group in sorted(groups.items()):
        group["params"] = [numbers.setdefault(name, len(numbers)) for name in group["params"]]
    states: dict[int, dict[str, Any]] = {number: {} for number in numbers.values()}
    for name, value in state.items():
        if name.startswith("state."):
            parameter, field = name.removeprefix("state.").rsplit(".", 1)
            states[numbers[parameter]][field] = value
    return {"state": states, "param_groups": [group for _, group in sorted(groups.items())]}
