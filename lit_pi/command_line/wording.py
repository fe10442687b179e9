"""Complaints of jsonargparse, in one sentence each."""

import itertools
import re

from lit_pi.errors import chain_of


def of_file(message: str, error: BaseException | None) -> tuple[str, str]:
    """Which file has the mistake, and what jsonargparse said of it before it tried the file's path as a value.

    Of that, the path inside the file of that path, it says only that this is a loop.
    """
    for each in chain_of(error):
        loop = re.match(r"Config file loop detected: .* -> (.*)", str(each))
        if loop and each.__context__ is not None:
            return f"in {loop[1]}, ", message.replace(str(each), str(each.__context__))
    return "", message


def one_sentence(message: str) -> str:
    """Say in one sentence what jsonargparse says over several lines, for each type that a value might have had."""
    keys = re.findall(r'Parser key "([^"]+)"', message)
    keys = [
        key for key, inner in itertools.zip_longest(keys, keys[1:], fillvalue="") if not inner.startswith(f"{key}.")
    ]
    key = ".".join(keys) or "the command line"
    given = re.search(r"(?:Given value|Got value|path string): (.*)", message)
    if option := re.search(r"Option '([^']+)' is not accepted", message):
        return f"{key} does not take `{option[1]}`: --{key}.help CLASS lists what a class takes"
    if "Expected a dot import path string" in message and given:
        return f"{key} is {given[1]}, and there is no class or file of that name"
    if missing := re.search(r"(?:File does not exist: |Expected a path but )'?(\S+\.ya?ml)", message):
        return f"{key} is {missing[1]}, and there is no such file or preset"
    if tried := re.search(r"Expected a path but (\S+) either not accessible or invalid\s+- (.*)", message, re.DOTALL):
        reason = " ".join(tried[2].removeprefix(f"Problem with given class_path '{tried[1]}':").split())
        return f"{key} is {tried[1]}, and there is no such class or file: {reason}"
    absent, named = re.search(r"No module named '([^']+)'", message), re.search(r"class_path='([^']+)'", message)
    if absent and named:
        return f"{key} is {named[1]}, which needs {absent[1]}: install it"
    if (choices := re.findall(r"Literal\[(.*?)\]", message)) and given:
        return f"{key} is {given[1]}, and must be one of {', '.join(dict.fromkeys(choices))}"
    if (kinds := re.findall(r"Expected (?:a )?<class '([^']+)'>", message)) and given:
        return f"{key} is {given[1]}, and must be of type {' or '.join(dict.fromkeys(kinds))}"
    if problem := re.search(r"Problem with given class_path '([^']+)':(.*)", message, re.DOTALL):
        return f"{key} is {problem[1]}, and that does not work: {' '.join(problem[2].split())}"
    return " ".join(message.split())
