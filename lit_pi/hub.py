"""The Hugging Face hub, whose absence is noticed at once."""

from contextlib import suppress
from functools import cache

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

HUB_TIMEOUT = 3.0
"""Seconds to wait for the hub's first answer."""
# The second is the base error of the HTTP library, another one in each version of the hub's.
UNREACHABLE: tuple[type[Exception], ...] = (OSError, HfHubHTTPError.__bases__[0])


@cache
def hub_offers(repository: str) -> bool:
    """Whether the hub answers, and has a model or tokenizer of this id.

    Where it does not, files that an earlier run has downloaded are all there is; transformers would ask for a minute.
    """
    with suppress(*UNREACHABLE, ValueError):
        HfApi().model_info(repository, timeout=HUB_TIMEOUT)
        return True
    return False
