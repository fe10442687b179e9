"""Names of weights: those that wrappers of a model gave them, and a few of many."""

import re
from collections.abc import Collection, Iterable

_WRAPPER = re.compile(
    r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|module|base_model\.model)\."
)
"""Parts of names that `torch.compile`, FSDP, activation checkpointing, DistributedDataParallel and peft add."""

FEW = 3
"""Names that a message shows of many."""


def without_wrappers(name: str, wanted: Collection[str]) -> str:
    """The name that a weight has in the model alone, unless the model itself knows it by the name given."""
    return name if name in wanted else _WRAPPER.sub("", name)


def wrappers_of(names: Iterable[str]) -> list[str]:
    """The wrappers that names speak of, as they stand in them."""
    return sorted({f"{wrapper}." for name in names for wrapper in _WRAPPER.findall(name)})


def first_few(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    rest = f" and {len(names) - FEW:,} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + rest
