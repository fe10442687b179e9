"""Doors: what a configuration may name, since it may come from a stranger."""

import re
from collections.abc import Iterator
from importlib import import_module
from inspect import isclass
from pathlib import PurePath
from string import Formatter
from typing import Any

from jsonargparse import Namespace

from lit_pi.errors import UserError, shown

FORM = re.compile(r"[<>=^]?[+-]?0?\d{0,2}(\.\d{1,2})?[a-z%]?")
"""How a number in a file's name may be formatted."""


def check_classes(config: Namespace) -> None:
    """Check that every `class_path` of a configuration names a class, before anything that it names is called.

    The parser has checked that a class is of the kind that its option takes; of functions it cannot know what they do.

    Raises:
        UserError: one names something else.
    """
    for key, path in _class_paths(config.as_dict(), ""):
        if not isclass(_imported(path)):
            raise UserError(f"{key} is {path}, which is no class: name a class of the kind that the option takes")


def check_template(filename: str | None) -> None:
    """Check that the name of checkpoints is one, inside of their folder.

    Raises:
        UserError: it is no template of Python's `format`, or leads out of the folder.
    """
    try:
        fields = [field for _, field, *_ in Formatter().parse(filename or "") if field is not None]
    except ValueError as error:
        raise UserError(
            f"checkpoint.filename is {shown(filename)}, which is no template ({error}): correct it"
        ) from error
    if not all(fields):
        raise UserError(f"checkpoint.filename is {shown(filename)}, which has braces without a name: write {{step}}")
    for _, field, form, _ in Formatter().parse(filename or ""):
        if (field and set(field) & set(".[")) or not FORM.fullmatch(form or ""):
            raise UserError(
                f"checkpoint.filename is {shown(filename)}, which asks for more than a number: write {{step}} or "
                "{step:06d}"
            )
    path = PurePath(filename or "")
    if path.is_absolute() or ".." in path.parts:
        raise UserError(
            f"checkpoint.filename is {shown(filename)}, which leads elsewhere: give a name, and the folder in "
            "checkpoint.dirpath"
        )


def _class_paths(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        if isinstance(path := value.get("class_path"), str):
            yield key, path
        for name, inner in value.items():
            yield from _class_paths(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for place, inner in enumerate(value):
            yield from _class_paths(inner, f"{key}.{place}")


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError:  # a class inside a class
        return getattr(_imported(module), name) if "." in module else None
    except (AttributeError, ValueError):
        return None
