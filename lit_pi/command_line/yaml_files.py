"""YAML as a person or a stranger wrote it, and presets: the YAML files that are installed with lit_pi."""

import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from lit_pi.errors import UserError, shown

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Makes plain values, and no objects of any tag."""

MISSING = object()
"""Stands for a value that is not there."""
MERGE = "tag:yaml.org,2002:merge"
"""The tag of the key `<<`."""
WHOLE = "tag:yaml.org,2002:int"
"""The tag of whole numbers, of which Python reads so many digits and no more."""
DEEPEST = 100
"""Mappings and lists inside of each other; a configuration has ten."""
MOST_NODES = 100_000
"""Values in a file; a plan of evaluations has a thousand."""


def preset(word: str) -> str:
    """A word of the command line, with the YAML file that it ends in: as given if it exists, else the installed preset.

    Raises:
        UserError: the file, or the value that the word gives instead, is not valid YAML.
    """
    option, equals, value = word.rpartition("=")
    if value.lstrip().startswith(("{", "[")) or len(value) > sys.get_int_max_str_digits():
        check_yaml(value, option or "a value on the command line")
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


def file_with(key: str, words: Iterable[str]) -> str | None:
    """The last YAML file among the words of a command line that has a key; None where none has.

    Args:
        key: names of options inside of each other, with dots between them.
        words: the words, as `preset` gives them.
    """
    for name in reversed([word.rpartition("=")[2] for word in words]):
        if not name.endswith(".yaml") or not Path(name).is_file():
            continue
        value = yaml.load(Path(name).read_text(encoding="utf-8"), Loader=Loader)  # noqa: S506 - it is a safe one
        for part in key.split("."):
            value = value.get(part, MISSING) if isinstance(value, dict) else MISSING
        if value is not MISSING:
            return name
    return None


def careful(load: Callable[[str], Any]) -> Callable[[str], Any]:
    """A loader of YAML that finds presets inside it as `found` does, and refuses what has two meanings."""

    def load_carefully(text: str) -> Any:
        if any(sign in text for sign in "{[:*"):
            check_yaml(text, f"the YAML `{shown(text)}`")
        return _with_presets(load(text))

    return load_carefully


def check_yaml(text: str, where: object) -> None:
    """Check that no mapping in a YAML text has a key twice, of which the first would be lost, and that it ends.

    Raises:
        UserError: one has, or it holds more than anyone wrote: aliases of aliases, depths, or digits.
    """
    try:
        if _depth(text) > DEEPEST:
            raise UserError(
                f"{where} has values inside of values, over {DEEPEST} deep: no option takes that, so write it flat"
            )
        root = yaml.compose(text, Loader=Loader)
    except yaml.YAMLError:
        return  # which whoever loads it says
    if root is None:
        return
    if _size(root, {}) > MOST_NODES:
        raise UserError(f"{where} has aliases of aliases that come to over {MOST_NODES:,} values: write it out")
    most = sys.get_int_max_str_digits()
    if (
        long := next((each for each in _scalars(root) if each.tag == WHOLE and len(each.value) > most), None)
    ) is not None:
        raise UserError(
            f"{where} has a number of {len(long.value):,} digits, which no option takes: write a smaller one"
        )
    if (twice := next(_twice(root), None)) is not None:
        line = twice.start_mark.line + 1
        raise UserError(f"{where} has the key `{twice.value}` twice, again in line {line}: keep one of them")


def _size(node: yaml.Node, sizes: dict[int, float]) -> float:
    """Values that a node comes to with its aliases written out; infinity where it holds itself."""
    if id(node) not in sizes:
        sizes[id(node)] = math.inf
        sizes[id(node)] = 1 + sum(_size(each, sizes) for each in _inside(node))
    return sizes[id(node)]


def _depth(text: str) -> int:
    """How deep the values of a text are inside of each other, found without going there; as far as the limit."""
    depth = 0
    for event in yaml.parse(text, Loader=Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            break
    return depth


def _scalars(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        yield node
    for each in _inside(node):
        yield from _scalars(each)


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
        check_yaml(text, path)
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
