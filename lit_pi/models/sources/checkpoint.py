"""The checkpoints of a run, and what they say about the model beside its weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig

from lit_pi.errors import UserError
from lit_pi.files import check_fetched
from lit_pi.gguf_file import is_gguf
from lit_pi.models.archive import Archive, content_of
from lit_pi.models.fingerprint import fingerprint
from lit_pi.models.language_model import LanguageModel
from lit_pi.models.sources.fitted import Misfits
from lit_pi.models.sources.provenance import KEY, config_in_effect
from lit_pi.models.sources.stored import META, SEALS, Shards, Stored, is_sharded
from lit_pi.models.training.lora import LoRA
from lit_pi.positions import Rope

HISTORY = "history"
"""Key of a checkpoint: the trainings that its weights come from."""

_WEIGHTS_PREFIX = "model.llm."

FOLDER = "checkpoints"
"""In a run directory, where its checkpoints are that are not told elsewhere."""


class SavedCheckpoint(NamedTuple):
    """A lit_pi checkpoint without its training state.

    Attributes:
        config: the model's config, with the positions in effect when it was saved.
        weights: tensors by their names in the Hugging Face model; under an adapter only those that were trained.
        adapter: arguments of `LoRA`, if there was one.
        base: arguments of the `Pretrained` model that was adapted.
    """

    config: PreTrainedConfig
    weights: Stored
    adapter: dict[str, Any] | None = None
    base: dict[str, Any] | None = None


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a checkpoint of a run, if it is anything of lit_pi's: a file, or a folder of shards."""
    return (path.is_file() and not is_gguf(path)) or is_sharded(path)


def is_run(path: Path) -> bool:
    """Whether a path is the directory of a training run, which may not have saved a checkpoint yet."""
    return (path / "checkpoints").is_dir() or (path / "fit.yaml").is_file()


def checkpoints_of(run: Path, folder: Path | None = None) -> list[Path]:
    """Checkpoints of a run directory, files or folders of shards; those too that Lightning saves by itself.

    Args:
        run: the run directory.
        folder: where the run saves them, at any depth; `checkpoints` in the run directory by default.

    Raises:
        UserError: something has the name of a checkpoint and is none.
    """
    inside = (folder or run / FOLDER).glob("**/*.ckpt")
    found = [path for path in inside if not any(above.suffix == ".ckpt" for above in path.parents)]
    found += run.glob("hpc_ckpt_*.ckpt")
    for path in found:
        if not (path.is_file() or is_sharded(path)):
            raise UserError(f"{path} has the name of a checkpoint, and is no complete one: remove it")
    return found


def newest_checkpoint(run: Path, folder: Path | None = None) -> Path:
    """The checkpoint of a run directory that has made the most steps; of several, the one written last.

    Args:
        run: the run directory.
        folder: where the run saves them; `checkpoints` in the run directory by default.

    Raises:
        UserError: there is none, or one is damaged.
    """
    found = checkpoints_of(run, folder)
    if not found:
        raise UserError(
            f"there is no complete checkpoint in {folder or run / FOLDER}: name the run directory of a `fit` that has "
            "saved one"
        )
    # Copies have other times than what they are copies of.
    return max(found, key=lambda path: (_step_of(path) if len(found) > 1 else 0, path.stat().st_mtime_ns))


def _step_of(path: Path) -> int:
    step = read_content(path).get("global_step")
    return step if isinstance(step, int) else 0


def model_record(model: LanguageModel) -> dict[str, Any]:
    """The config in effect and the strategy's fingerprint: nothing that `weights_only` loading refuses."""
    config = config_in_effect(model.llm.config, model.position, model.rope)
    return {
        "config": json.loads(config.to_json_string(use_diff=False)),
        "fingerprint": fingerprint(model.rotations),
    }


def read_content(path: Path) -> dict[str, Any]:
    """Read what a checkpoint holds, memory-mapped; of a folder of shards everything but the weights.

    All but the weights and the optimizers' states is checked to be what was written.

    Raises:
        UserError: it is no checkpoint, not one of lit_pi, or damaged.
    """
    return _read(path)[0]


def read_whole(path: Path, optimizers: int, rank: int = 0, ranks: int = 1) -> dict[str, Any]:
    """Read what a checkpoint holds, as `read_content` does, and check weights and optimizers' states too.

    Args:
        path: the checkpoint, a file or a folder of shards.
        optimizers: the number of optimizers whose states are checked, of shards; of a file all are.
        rank: number of this process.
        ranks: processes that check a part of the tensors each.

    Raises:
        UserError: see `read_content`.
    """
    content, archive = _read(path)
    if is_sharded(path):
        names = ("state_dict.", *(f"optimizer_{number}." for number in range(optimizers)))
        shards_of(path, content).check(names, rank, ranks)
        return content
    try:
        archive.check_tensors(rank, ranks)
    except ValueError as error:
        raise _damaged(path, error) from error
    return content


def shards_of(path: Path, content: Mapping[str, Any]) -> Shards:
    """The shards of a checkpoint with this content.

    Raises:
        UserError: they are not what was written, or nobody knows.
    """
    if SEALS not in content:
        raise UserError(
            f"the shards of {path} have no checksums, an older lit_pi wrote them: export it with that one, and name "
            "the exported directory"
        )
    return Shards(path, content[SEALS])


def _read(path: Path) -> tuple[dict[str, Any], Archive]:
    file = path / META if is_sharded(path) else path
    if file.is_file():
        check_fetched(file)
    try:
        archive = Archive(content_of(file))
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        apply_to_collection({**content, "state_dict": {}, "optimizer_states": []}, Tensor, archive.check_tensor)
        Rope(**content[KEY]["config"][KEY]["rope"])
    except Exception as error:  # what is something else, or damaged, fails in as many ways as there are
        reason = f" ({error})" if type(error) is ValueError else ""
        raise UserError(
            f"{path} is not a checkpoint of lit_pi, or a damaged one{reason}: name one that `lit-pi fit` wrote"
        ) from error
    return content, archive


def _damaged(path: Path, reason: object) -> UserError:
    return UserError(f"{path} is damaged ({reason}): copy it again, or take another checkpoint of the run")


def training_records(place: Path) -> list[dict[str, Any]]:
    """Records of the token stores that a checkpoint was trained on, in all runs; none for other kinds of models.

    Raises:
        UserError: it is a file, but no checkpoint of lit_pi.
    """
    return read_content(place)[KEY].get("documents", []) if is_checkpoint(place) else []


def history(place: Path) -> list[dict[str, Any]]:
    """Trainings that the weights of a checkpoint come from; none for other kinds of models.

    Raises:
        UserError: it is a file, but no checkpoint of lit_pi.
    """
    return read_content(place).get(HISTORY, []) if is_checkpoint(place) else []


def read_checkpoint(path: Path) -> SavedCheckpoint:
    """The checkpoint at `path`, a file or a folder of shards, whose weights are read when they are asked for.

    Raises:
        UserError: it is no checkpoint, or not one of lit_pi.
    """
    content, archive = _read(path)
    record = content[KEY]

    def read(name: str) -> Tensor:
        tensor = content["state_dict"][name]
        try:
            archive.check_tensor(tensor)
        except ValueError as error:
            raise _damaged(path, f"{name}: {error}") from error
        return tensor

    try:
        if is_sharded(path):
            stored = shards_of(path, content).weights("state_dict.")
        else:
            stored = Stored({name: tensor.to("meta") for name, tensor in content["state_dict"].items()}, read)
        fields = dict(record["config"])
        config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    except UserError:
        raise
    except Exception as error:  # its record may say anything
        raise UserError(
            f"{path} is not a checkpoint of lit_pi, or a damaged one: its record of the model cannot be read "
            f"({type(error).__name__})"
        ) from error
    Misfits(left_over={name for name in stored if not name.startswith(_WEIGHTS_PREFIX)}).refuse(path)
    return SavedCheckpoint(
        config=config,
        weights=stored.renamed({name.removeprefix(_WEIGHTS_PREFIX): name for name in stored}),
        adapter=record.get("adapter"),
        base=record.get("base"),
    )


def check_checkpoint(content: dict[str, Any], model: LanguageModel, path: str | Path | None) -> dict[str, Any]:
    """The position strategy a Lightning checkpoint was trained with, if its weights fit the model.

    Raises:
        UserError: it is not a checkpoint of lit_pi, or one of another architecture.
    """
    if KEY not in content:
        raise UserError(f"{path} is not a checkpoint of lit_pi: name one that `lit-pi fit` wrote")
    # One that is read straight into the model's shards has no weights here.
    if (weights := content.get("state_dict")) is not None:
        _check_shapes(weights, model, path)
    return content[KEY]["config"][KEY]["position"]


def _check_shapes(weights: Mapping[str, Tensor], model: LanguageModel, path: str | Path | None) -> None:
    wanted = {f"model.{name}": tensor.shape for name, tensor in model.state_dict().items()}
    found = {name: tensor.shape for name, tensor in weights.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise UserError(
                f"{path} is a checkpoint of another architecture: {name.removeprefix(_WEIGHTS_PREFIX)} is "
                f"{_shape(found.get(name))} there and {_shape(wanted.get(name))} in the model that `model.llm` "
                "describes; describe the checkpoint's own model"
            )


def check_adapter(content: dict[str, Any], adapter: LoRA | None, path: str | Path | None) -> None:
    """Check that a Lightning checkpoint holds the weights that a model with this adapter, or with none, trains.

    Raises:
        UserError: it was written with another adapter.
    """
    found = content.get(KEY, {}).get("adapter")
    wanted = None if adapter is None else adapter.describe()
    if found == wanted:
        return
    if wanted is None:
        raise UserError(
            f"{path} holds an adapter without the model beside it: give `model.adapter` as it was trained, or the "
            "merged model by `model.llm` as `Pretrained` with this path"
        )
    raise UserError(f"{path} was trained with the adapter {found}, and model.adapter asks for {wanted}: give that one")


def _shape(shape: torch.Size | None) -> str:
    return "absent" if shape is None else " x ".join(map(str, shape))
