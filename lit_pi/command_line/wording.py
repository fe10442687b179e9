"""Complaints of jsonargparse, in one sentence each."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from lit_pi.command_line.mistakes import mistake_behind
from lit_pi.command_line.names import classes, missing_methods, options_of
from lit_pi.command_line.yaml_files import file_with, presets
from lit_pi.errors import UserError, chain_of, nearest, shown

COMMAND_LINE = "the command line"
"""Where a mistake is that has no key."""
NUMBERS = {"float": "a number", "int": "a whole number"}
"""Types as people call them."""
NOT_FINITE = re.compile(r"[+-]?\.?(nan|inf|infinity)", re.IGNORECASE)

FOREIGN = re.compile(r"(Subcommand|Group) '([^']+)' does not accept option '([^']+)'")
"""How jsonargparse says that a file has an option that is none."""
PLAIN = re.compile(r"True|False|[-+]?\d[-\d.e:+ ]*")
"""Truth values, numbers and dates, as Python writes them."""


def of_file(message: str, error: BaseException | None) -> tuple[str, str]:
    """Which file has the mistake, and what jsonargparse said of it before it tried the file's path as a value.

    Of that, the path inside the file of that path, it says only that this is a loop.
    """
    for each in chain_of(error):
        loop = re.match(r"Config file loop detected: .* -> (.*)", str(each))
        if loop and each.__context__ is not None:
            return f"in {loop[1]}, ", message.replace(str(each), str(each.__context__))
    return "", message


@contextmanager
def naming_the_file(words: list[str]) -> Iterator[None]:
    """Say which of the YAML files on a command line has an option that is none.

    Args:
        words: the command line.

    Raises:
        UserError: that of the block.
    """
    try:
        yield
    except UserError as error:
        foreign = next(filter(None, (FOREIGN.match(str(each)) for each in chain_of(error))), None)
        if foreign is None or (file := file_with(_key(foreign), words)) is None:
            raise
        raise UserError(f"in {file}, {error}") from error


@contextmanager
def telling_what_fails() -> Iterator[None]:
    """Say in one sentence why a class that was asked for cannot be made.

    Raises:
        UserError: its package is not installed, or it does not take what it was given.
    """
    try:
        yield
    except UserError:
        raise
    except (ImportError, ValueError, TypeError, AssertionError, LookupError, ArithmeticError) as error:
        if (mistake := mistake_behind(error)) is not None:
            raise UserError(mistake) from error
        # Of a class where others or null may stand, all that was tried; that it is no null says nothing.
        tried = re.search(r"Errors:\n(.*?)\nGiven value type", str(error), re.DOTALL)
        reasons = re.split(r"^ *- ", tried[1], flags=re.MULTILINE) if tried else [str(error)]
        told = [" ".join(reason.split()) for reason in reasons if not reason.startswith("Expected a")]
        problem = "; ".join(filter(None, told))
        problem = re.sub(r"Problem with given class_path '([^']+)':", r"\1 cannot be made:", problem)
        raise UserError(problem or f"a class cannot be made ({type(error).__name__}): see its options") from error


def one_sentence(message: str, options: Mapping[str, Any]) -> str:
    """Say in one sentence what jsonargparse says over several lines, for each type that a value might have had.

    Args:
        message: the complaint.
        options: types of the command's options by their names, for what is not known.
    """
    found = re.findall(r'Parser key "([^"]+)"', message)
    keys = [
        key for key, inner in itertools.zip_longest(found, found[1:], fillvalue="") if not inner.startswith(f"{key}.")
    ]
    key = ".".join(keys) or COMMAND_LINE
    fitting: Callable[[str, str], str | None] = partial(_no_class, hint=options.get(f"--{key}"))
    for say in (*SAYINGS, fitting, _of_another_type):
        if sentence := say(message, key):
            return sentence
    if unknown := re.fullmatch(r"unrecognized arguments: (.*)", message.strip(), re.DOTALL):
        names = [word.partition("=")[0] for word in unknown[1].split() if word.startswith("-")] or [unknown[1]]
        return f"there is no option {names[0]}{nearest(names[0], options)}: --help lists them"
    if foreign := FOREIGN.match(message):
        names = [name.removeprefix("--") for name in options]
        return f"there is no option {shown(_key(foreign))}{nearest(_key(foreign), names)}: --help lists them"
    if command := re.search(r"invalid choice: '([^']+)' \(choose from (.*)\)", message):
        return f"there is no command {command[1]}{nearest(command[1], re.findall(r'[a-z]+', command[2]))}: {command[2]}"
    if other := re.match(r"Unexpected config: (.*)", message, re.DOTALL):
        return f"a configuration holds `{shown(other[1])}` and no options: write `option: value`, a line each"
    return " ".join(message.split())


def _key(foreign: re.Match[str]) -> str:
    """The option that jsonargparse does not know, as a file has it."""
    kind, owner, option = foreign.groups()
    return option if kind == "Subcommand" else f"{owner}.{option}"


def _refused(message: str, key: str) -> str | None:
    if denied := re.search(r"Importing '([^']+)' is not allowed", message):
        return f"{key} is {denied[1]}, which may run anything: name a class of the kind that the option takes"
    if other := re.search(
        r"Expected '([^']+)' to be a (?:subclass of <class '|function that returns )([\w.]+)", message
    ):
        return f"{key} is {other[1]}, which is no {other[2].rpartition('.')[2]}: name a class that is one"
    if other := re.search(r"Import path (\S+) does not correspond to a subclass of (\w+)", message):
        return f"{key} is {other[1]}, which does not correspond to a subclass of {other[2]}: name a class that is one"
    return None


def _incomplete(message: str, key: str) -> str | None:
    if needed := re.search(r"the following arguments are required: (.*?)(?:\. Got value|$)", message, re.MULTILINE):
        option = needed[1].split(",")[0]
        return f"{key} needs {needed[1]}: give --{option if key == COMMAND_LINE else f'{key}.{option}'}"
    return None


def _not_taken(message: str, key: str) -> str | None:
    if option := re.search(r"Option '([^']+)' is not accepted", message):
        named = re.findall(r"class_path='?([\w.]+)", message.replace("class_path '", "class_path='"))
        takes = options_of(named[-1]) if named else []
        listed = f"it takes {', '.join(takes)}" if takes else f"--{key}.help CLASS lists what a class takes"
        return f"{key} does not take `{option[1]}`{nearest(option[1], takes)}: {listed}"
    return None


def _abstract(message: str, key: str) -> str | None:
    if found := re.search(r"Expected an instantiatable class, but (\S+) is abstract", message):
        given, name = _given(message) or found[1], found[1].rpartition(".")[2]
        if (
            re.search(rf"\b{re.escape(name)}\b", given) is None
        ):  # the class that the option takes, of which a mapping without a class is taken for one
            return f"{key} is {shown(given)}, which names no class: give `class_path` and `init_args`"
        lacks = ", ".join(f"`{method}`" for method in missing_methods(found[1]))
        mend = f"write its {lacks}" if lacks else f"name a class that is a {name}"
        return f"{key} is {found[1]}, which is abstract: {mend}"
    return None


def _no_module(message: str, key: str) -> str | None:
    absent = re.search(r"No module named '([^']+)'", message)
    named = re.search(r"class_path(?:=| )'([^']+)'", message)
    if absent is None or named is None:
        return None
    mend = "install it"
    if f"{named[1]}.".startswith(f"{absent[1]}."):
        mend += (
            f", or begin with PYTHONPATH=FOLDER for a module of one's own, such as PYTHONPATH=. for {absent[1]} here"
        )
    return f"{key} is {named[1]}, which needs {absent[1]}: {mend}"


def _of_another_form(message: str, key: str) -> str | None:
    if form := re.search(r"Not of type (\w+): Expected (.*) but got", message):
        return f"{key} is {shown(_given(message))}, and must be of type {form[1]}: give {form[2]}"
    return None


def _no_file(message: str, key: str) -> str | None:
    if other := re.search(r"Path is not a file: '(.*)'", message):
        return f"{key} is {shown(other[1])}, which is a folder or something else: name a file in YAML"
    any_name = r"'?([^'\n]+)" if key == "config" else r"'?(\S+\.ya?ml)"
    if missing := re.search(rf"(?:File does not exist: |Expected a path but ){any_name}", message):
        return f"{key} is {missing[1]}, and there is no such file or preset{nearest(missing[1], presets())}"
    return None


def _no_number(message: str, key: str) -> str | None:
    """The sentence of a value that is no number; where Tensors, files and classes are taken too, nobody means them."""
    given, kinds = _given(message), _kinds(message)
    if given is None or not NUMBERS.keys() & kinds or "Literal[" in message:
        return None
    if NOT_FINITE.fullmatch(given):
        return f"{key} is {given}, which is not finite: give a number that is"
    if isinstance(given, str) and "class_path" in given and len(kinds) > 1:
        return None
    called = [NUMBERS[kind] for kind in NUMBERS if kind in kinds]
    return f"{key} is {shown(given)}, and must be of type {' or '.join(kinds)}: give {' or '.join(called)}"


def _no_name(message: str, key: str) -> str | None:
    return f"{key} has a NUL byte in it, which no name has: remove that" if "embedded null byte" in message else None


def _no_text(message: str, key: str) -> str | None:
    """The sentence of a value that YAML takes for something else than text."""
    given = _given(message)
    if given is None or "str" not in _kinds(message) or not PLAIN.fullmatch(given):
        return None
    truth = ", as YAML reads yes, no, on and off" if given in ("True", "False") else ""
    return f"{key} is {given}{truth}, and must be of type {' or '.join(_kinds(message))}: put a text in quotes"


def _no_class(message: str, key: str, hint: Any) -> str | None:
    if name := re.search(r"Expected a dot import path string: (\S+)", message):
        return f"{key} is {name[1]}, and there is no class or file of that name{nearest(name[1], classes(hint))}"
    if tried := re.search(r"Expected a path but (\S+) either not accessible or invalid\s+- (.*)", message, re.DOTALL):
        reason = " ".join(tried[2].removeprefix(f"Problem with given class_path '{tried[1]}':").split())
        return f"{key} is {shown(tried[1])}, and there is no such class or file: {reason}"
    return None


def _of_another_type(message: str, key: str) -> str | None:
    given = _given(message)
    if (choices := re.findall(r"Literal\[(.*?)\]", message)) and given is not None:
        listed = ", ".join(dict.fromkeys(choices))
        likely = nearest(given, re.findall(r"'([^']+)'", listed))
        return f"{key} is {shown(given)}, and must be one of {listed}{likely}"
    problem = re.search(r"Problem with given class_path '([^']+)':(.*?)(?:\n *- |\n *Given|\Z)", message, re.DOTALL)
    if problem and "Parser key" not in problem[2]:
        return f"{key} is {problem[1]}, and that does not work: {' '.join(problem[2].split())}"
    if (kinds := _kinds(message)) and given is not None:
        return f"{key} is {shown(given)}, and must be of type {' or '.join(kinds)}"
    return None


SAYINGS: tuple[Callable[[str, str], str | None], ...] = (
    _refused, _abstract, _incomplete, _not_taken, _no_file, _no_module, _of_another_form, _no_number, _no_text, _no_name
)  # fmt: skip
"""Ways to say it, the most telling first; those of classes, and of types at last, follow."""


def _given(message: str) -> str | None:
    given = re.search(r"(?:Given value|Got value|path string): (.*)", message)
    return given[1].split(". Got value:")[0] if given else None


def _kinds(message: str) -> list[str]:
    found = dict.fromkeys(re.findall(r"Expected (?:a )?<class '([^']+)'>", message))
    return [kind for kind in found if kind != "NoneType"] or list(found)
