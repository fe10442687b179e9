"""Weights that fit their model: none missing, none left over, none of another shape or kind of number."""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging

from lit_pi.errors import UserError
from lit_pi.models.sources.naming import first_few, without_wrappers, wrappers_of
from lit_pi.models.sources.stored import Stored

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Dtypes of weights that can be trained."""


class Misfits(NamedTuple):
    """Weights that do not fit into a model.

    Attributes:
        missing: names of weights that the model has and that are not stored.
        left_over: names of weights that are stored and that the model does not have.
        misshapen: shapes of other weights, stored and in the model, by name.
    """

    missing: AbstractSet[str] = frozenset()
    left_over: AbstractSet[str] = frozenset()
    misshapen: Mapping[str, tuple[torch.Size, torch.Size]] = MappingProxyType({})

    def __bool__(self) -> bool:
        """Whether there is any."""
        return any(map(bool, self))

    def __str__(self) -> str:
        """The first names of each kind, in words."""
        shapes = [f"{name} is {_by(found)} instead of {_by(want)}" for name, (found, want) in self.misshapen.items()]
        kinds = {"missing": self.missing, "left over": self.left_over, "of another shape": shapes}
        return ", ".join(f"{kind}: {first_few(sorted(names))}" for kind, names in kinds.items() if names)

    def refuse(self, place: object) -> None:
        """Refuse what does not fit.

        Raises:
            UserError: something does not.
        """
        if self:
            raise UserError(
                f"the weights of {place} do not fit its config ({self}): save or fetch that model again, whole and by "
                "itself"
            )


def compared(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Misfits:
    """Tensors that do not fit where each has to have its own name."""
    return Misfits(
        missing=wanted.keys() - found.keys(),
        left_over=found.keys() - wanted.keys(),
        misshapen={
            name: (found[name].shape, wanted[name].shape)
            for name in found.keys() & wanted.keys()
            if found[name].shape != wanted[name].shape
        },
    )


def fitted(weights: Stored, llm: PreTrainedModel, place: object) -> Stored:
    """The stored weights of a model, by its own names or by those that transformers converts to it.

    Names lose what wrappers added to them, which is said. Tied weights have to be stored once, and what transformers
    ignores may be there. Values are read of tied weights alone, and only if they are stored more than once.

    Args:
        weights: the weights as they are stored.
        llm: the model, which may be without data.
        place: where they are stored, for messages.

    Raises:
        UserError: they are not the weights of this model.
    """
    wanted = llm.state_dict()
    plain: dict[str, str] = {}
    for name in weights:
        if (other := plain.setdefault(without_wrappers(name, wanted), name)) != name:
            raise UserError(f"{place} holds the same weights twice, as {other} and as {name}: leave out one of them")
    if wrappers := wrappers_of(name for alone, name in plain.items() if alone != name):
        rank_zero_info(f"Weights of {place}: names are read without {', '.join(wrappers)}, which wrappers had added.")
        weights = weights.renamed(plain)
    _asked(llm, weights.like, place).refuse(place)
    _check_dtypes(weights.like, llm, place)
    return _untied(weights, llm, place)


def _check_dtypes(like: Mapping[str, Tensor], llm: PreTrainedModel, place: object) -> None:
    """Check that what is floating-point in the model is stored as numbers of 16 bits or more."""
    wanted = llm.state_dict()
    foreign = {
        name: str(tensor.dtype).removeprefix("torch.")
        for name, tensor in like.items()
        if tensor.dtype not in DTYPES and (name not in wanted or wanted[name].is_floating_point())
    }
    # Those that transformers ignores may be of any dtype: nothing misses them.
    if foreign and _asked(llm, {name: like[name] for name in like.keys() - foreign.keys()}, place).missing:
        raise UserError(
            f"weights of {place} are stored as numbers that cannot be trained: "
            f"{first_few(f'{name} ({dtype})' for name, dtype in sorted(foreign.items()))}; convert them to float32, "
            "float16 or bfloat16"
        )


def _asked(llm: PreTrainedModel, like: Mapping[str, Tensor], place: object) -> Misfits:
    """Misfits that transformers finds when it loads weights without data, with its conversions for the model.

    Raises:
        UserError: it cannot convert them.
    """
    meta: dict[str, Any] = {"": torch.device("meta")}
    try:
        with silent():
            loaded: Any = type(llm).from_pretrained(
                None, config=llm.config, state_dict=dict(like), device_map=meta, dtype=llm.dtype,
                local_files_only=True, ignore_mismatched_sizes=True, output_loading_info=True,
            )  # fmt: skip
    except RuntimeError as error:  # of a conversion: stacks of experts that differ in shape
        raise UserError(
            f"the weights of {place} do not fit together, so that transformers cannot convert them to its "
            f"{type(llm).__name__}: save or fetch that model again, whole and by itself"
        ) from error
    found = loaded[1]
    # Of two names for one weight it takes the first, and says nothing of the other.
    twice = {name for name in like if f"{llm.base_model_prefix}.{name}" in like}
    return Misfits(
        set(found["missing_keys"]),
        set(found["unexpected_keys"]) | twice,
        {name: (stored, wanted) for name, stored, wanted in found["mismatched_keys"]},
    )


def _untied(weights: Stored, llm: PreTrainedModel, place: object) -> Stored:
    """The weights, with the name that `named_parameters` uses of tied ones where they are stored under another."""
    names = {name: name for name in weights}
    ties: dict[Tensor, list[str]] = {}
    for name, parameter in llm.named_parameters(remove_duplicate=False):
        ties.setdefault(parameter, []).append(name)
    for tied in ties.values():
        first, *others = [name for name in tied if name in weights] or tied
        for name in others:
            if name in weights and not torch.equal(weights[first], weights[name]):
                raise UserError(
                    f"{place} holds {first} and {name}, which differ though its config ties them: set "
                    "`tie_word_embeddings: false` in the config, or leave out the one that is wrong"
                )
        if first in weights:
            names[tied[0]] = first
    return weights.renamed(names)


@contextmanager
def silent() -> Iterator[None]:
    """Transformers without its report and its progress bar."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _by(shape: torch.Size) -> str:
    return " x ".join(map(str, shape)) or "a number"
