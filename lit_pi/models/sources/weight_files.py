"""The files of a Hugging Face model's weights, found and opened without trust: they may come from anyone."""

import json
import pickle
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path, PurePath

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.modeling_utils import load_state_dict, str_to_torch_dtype
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    cached_file,
)

from lit_pi.errors import UserError
from lit_pi.files import check_fetched
from lit_pi.models.sources.naming import first_few
from lit_pi.models.sources.stored import Stored
from lit_pi.seal import Seal

NAMES = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
"""Files of weights, or of which files hold them, in the order in which transformers looks for them."""


def find(model: str, name: str, here: bool) -> Path | None:
    """A file of a Hugging Face directory or hub id, if it has one of that name.

    Args:
        model: the directory or id.
        name: the file.
        here: look on this machine only.
    """
    found = cached_file(model, name, local_files_only=here, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)


def weights_of(model: str, config: PreTrainedConfig, here: bool) -> Stored:
    """The weights of a Hugging Face directory or hub id, of which only names, shapes and dtypes are read at once.

    Raises:
        UserError: there are none, or a file of theirs is damaged, absent, or not what it says or what was exported.
    """
    seal = Seal(Path(model))
    seal.check_weights()
    named = getattr(config, "transformers_weights", None)
    names = NAMES if named is None else (_inside(str(named), "config.json"),)
    places = ((name, find(model, name, here)) for name in names)
    name, file = next(((name, file) for name, file in places if file is not None), (None, None))
    if name is None or file is None:
        where = "on this machine" if here else "on the hub"
        raise UserError(f"{model} holds no weights: there is no {' and no '.join(names)} of it {where}")
    check_fetched(file)
    if not name.endswith(".index.json"):
        return _together([file], seal)
    index = _weight_map(file)
    files = {shard: find(model, _inside(shard, file), here) for shard in dict.fromkeys(index.values())}
    if absent := [shard for shard, place in files.items() if place is None]:
        raise UserError(f"{file} names {first_few(absent)}, absent from {model}: fetch or copy the model again")
    weights = _together((place for place in files.values() if place is not None), seal)
    if unknown := sorted(index.keys() - weights.keys()):
        raise UserError(
            f"{file} says where {first_few(unknown)} is stored, and no file of {model} holds that: fetch or copy the "
            "model again"
        )
    return weights


def _weight_map(file: Path) -> dict[str, str]:
    """The files of the weights, by names of weights, as an index has them."""
    try:
        index = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not valid JSON ({error}): fetch or copy it again") from error
    found = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(found, dict) or not found or not all(isinstance(shard, str) for shard in found.values()):
        raise UserError(f"{file} has no `weight_map`, which says in which file each weight is: fetch or copy it again")
    return found


def _inside(name: str, where: object) -> str:
    """The name of a file, if it lies in the directory of the one that names it."""
    if PurePath(name) == PurePath():
        raise UserError(f"{where} names {name!r} where a file's name should be: fetch or copy the model again")
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise UserError(f"{where} names {name}, which lies outside of the model's own directory: mend or remove it")
    return name


def _together(files: Iterable[Path], seal: Seal) -> Stored:
    """The weights of several files, none of which may be in two."""
    like: dict[str, Tensor] = {}
    readers: dict[str, Callable[[], Tensor]] = {}
    for file in files:
        check_fetched(file)
        try:
            opened = _safetensors(file, seal) if file.suffix == ".safetensors" else _pickled(file)
        except UserError:
            raise
        except Exception as error:  # damage, or malice, shows in as many ways as there are
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            if isinstance(error, pickle.UnpicklingError):  # torch's advice is to run what it holds
                reason = "a pickle of anything but weights is not opened"
            raise UserError(
                f"{file} holds no weights that can be read ({reason}): it is damaged or something else, so fetch or "
                "copy it again"
            ) from error
        if twice := sorted(like.keys() & opened.like.keys()):
            raise UserError(f"{file} and another file of the same model both hold {first_few(twice)}: remove one")
        like |= opened.like
        readers |= {name: partial(opened.__getitem__, name) for name in opened}
    return Stored(like, lambda name: readers[name]())


def _safetensors(file: Path, seal: Seal) -> Stored:
    like = {}
    # It checks that the tensors are those of the file: none beyond its end, and nothing between them.
    with safe_open(file, "pt") as content:
        for name in content.keys():  # noqa: SIM118
            part = content.get_slice(name)
            if (dtype := str_to_torch_dtype.get(part.get_dtype())) is None:
                raise UserError(
                    f"{file} stores {name} as {part.get_dtype()}, which cannot be trained: convert it to float32, "
                    "float16 or bfloat16"
                )
            like[name] = torch.empty(part.get_shape(), dtype=dtype, device="meta")

    def read(name: str) -> Tensor:
        # Files that stayed open would be held in memory as far as they were read.
        with safe_open(file, "pt") as content:
            tensor = content.get_tensor(name)
        seal.check_tensor(file.name, name, tensor)
        return tensor

    return Stored(like, read)


def _pickled(file: Path) -> Stored:
    content = load_state_dict(file)  # with `weights_only`, which runs nothing
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise ValueError("it is no mapping of names to tensors")
    if without := [name for name, tensor in content.items() if tensor.is_meta]:
        raise ValueError(f"without their values there are {first_few(without)}")
    return Stored({name: tensor.to("meta") for name, tensor in content.items()}, content.__getitem__)
