"""Values of a configuration, with the options that they belong to."""

from collections.abc import Iterator
from typing import Any


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is neither a mapping nor a list, with its option as the command line names it.

    Args:
        value: a configuration, or a part of it.
        key: the option that the part belongs to.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from leaves(inner, key)
    else:
        yield key, value
