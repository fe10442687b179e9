"""YAML as a person or a stranger wrote it, and presets: the YAML files that are installed with lit_pi."""

import itertools
import math
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from lit_pi.errors import UserError, shown

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Makes plain values, and no objects of any tag."""

MERGE = "tag:yaml.org,2002:merge"
"""The tag of the key `<<`."""
MOST_NODES = 100_000
"""Values in a file; a plan of evaluations has a thousand."""


def preset(word: str) -> str:
    """A word of the command line, with the YAML file that it ends in: as given if it exists, else the installed preset.

    Raises:
        UserError: the file, or the value that the word gives instead, is not valid YAML.
    """
    option, equals, value = word.rpartition("=")
    if value.startswith(("{", "[")):
        check_keys(value, option or "a value on the command line")
    return f"{option}{equals}{found(value)}"


def found(name: str) -> str:
    """The path of a YAML file, which is checked: as given if it exists, else of the preset of that name.

    Args:
        name: the path, or anything else, which is returned as it is.

    Raises:
        UserError: the file is not valid YAML.
    """
    if not name.endswith(".yaml") or "\n" in name:
        return name
    path = Path(name)
    if not path.exists():
        installed = Path(str(resources.files("lit_pi.configs"))) / name.removeprefix("configs/")
        if not installed.is_file():
            return name
        path = installed
    if path.is_file():
        _check_file(path)
    return str(path)


def presets() -> list[str]:
    """Names of all presets."""
    root = Path(str(resources.files("lit_pi.configs")))
    return [f"configs/{path.relative_to(root).as_posix()}" for path in root.rglob("*.yaml")]


def careful(load: Callable[[str], Any]) -> Callable[[str], Any]:
    """A loader of YAML that finds presets inside it as `found` does, and refuses what has two meanings."""

    def load_carefully(text: str) -> Any:
        if any(sign in text for sign in "{[:*"):
            check_keys(text, f"the YAML `{shown(text)}`")
        return _with_presets(load(text))

    return load_carefully


def check_keys(text: str, where: object) -> None:
    """Check that no mapping in a YAML text has a key twice, of which the first would be lost, and that it ends.

    Raises:
        UserError: one has, or aliases make more of the text than anyone wrote.
    """
    try:
        root = yaml.compose(text, Loader=Loader)
    except yaml.YAMLError:
        return  # which whoever loads it says
    if root is None:
        return
    if _size(root, {}) > MOST_NODES:
        raise UserError(f"{where} has aliases of aliases that come to over {MOST_NODES:,} values: write it out")
    if (twice := next(_twice(root), None)) is not None:
        line = twice.start_mark.line + 1
        raise UserError(f"{where} has the key `{twice.value}` twice, again in line {line}: keep one of them")


def _size(node: yaml.Node, sizes: dict[int, float]) -> float:
    """Values that a node comes to with its aliases written out; infinity where it holds itself."""
    if id(node) not in sizes:
        sizes[id(node)] = math.inf
        sizes[id(node)] = 1 + sum(_size(each, sizes) for each in _inside(node))
    return sizes[id(node)]


def _inside(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        yield from itertools.chain.from_iterable(node.value)


def _twice(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.MappingNode):
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != MERGE]
        yield from (key for place, key in enumerate(keys) if key.value in {other.value for other in keys[:place]})
    for each in _inside(node):
        yield from _twice(each)


def _with_presets(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_presets(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_presets(inner) for inner in value]
    return found(value) if isinstance(value, str) else value


def _check_file(path: Path) -> None:
    try:
        text = path.read_text(encoding="utf-8")
        check_keys(text, path)
        content = yaml.safe_load(text)
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 at byte {error.start}: save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, (dict, list)):
        held = "nothing" if content is None else f"`{str(content)[:40]}`"
        raise UserError(f"{path} holds {held} and no options: write `option: value`, a line each, or leave it out")
