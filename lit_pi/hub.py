"""The Hugging Face hub, whose absence is noticed at once."""

from contextlib import suppress
from functools import cache
from typing import NamedTuple

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

HUB_TIMEOUT = 3.0
"""Seconds to wait for the hub's first answer."""
# The second is the base error of the HTTP library, another one in each version of the hub's.
UNREACHABLE: tuple[type[Exception], ...] = (OSError, HfHubHTTPError.__bases__[0])


class DatasetRepository(NamedTuple):
    """A repository of datasets, as the hub tells it.

    Attributes:
        commit: the commit that a revision stands for now; None where the hub cannot be reached.
        files: paths of its files.
        problem: the reason why the hub does not answer, in one line.
    """

    commit: str | None
    files: list[str]
    problem: str = ""


def dataset_repository(repository: str, revision: str | None) -> DatasetRepository:
    """Ask the hub for a repository of datasets.

    Args:
        repository: its id.
        revision: branch, tag or commit; the default branch if it is None.
    """
    try:
        found = HfApi().dataset_info(repository, revision=revision, timeout=HUB_TIMEOUT)
    except UNREACHABLE as error:
        return DatasetRepository(None, [], (str(error) or type(error).__name__).split("\n")[0].rstrip(". "))
    return DatasetRepository(found.sha, [sibling.rfilename for sibling in found.siblings or []])


@cache
def hub_offers(repository: str) -> bool:
    """Whether the hub answers, and has a model or tokenizer of this id.

    Where it does not, files that an earlier run has downloaded are all there is; transformers would ask for a minute.
    """
    with suppress(*UNREACHABLE, ValueError):
        HfApi().model_info(repository, timeout=HUB_TIMEOUT)
        return True
    return False
