"""Secrets of a configuration, which stay out of the files that are kept of it, and out of what is said of it."""

import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.resolvers import oc

_FOUND: dict[str, str] = {}
"""Values that the environment gave, with how to write where it came from."""
WHOLE_WORDS = 8
"""Letters below which a value counts inside of a text only as a word of its own: `cpu` is not part of `cpus`."""
SECRET_KEY = re.compile(r"(^|_)(password|passwd|secret|api_key|(api|auth|access|hub|hf|bearer)_token)$|^token$")
"""Names of options that hold a secret; `bos_token` is none."""
SECRET_VALUE = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,})")
"""Tokens of the Hugging Face hub, of GitHub, and keys as several services give them."""
LEFT_OUT = "(a secret, not kept)"


def _from_environment(*arguments: Any) -> Any:
    """The resolver of `${oc.env:NAME}`, which remembers what it gives, however it was asked."""
    value, name = oc.env(*arguments), str(arguments[0])
    if value and name in os.environ:
        _FOUND[value] = f"${{oc.env:{name}}}"
        for part in _parts(value):
            _FOUND.setdefault(part, LEFT_OUT)
    return value


OmegaConf.register_resolver("oc.env", _from_environment, replace=True)


def _parts(value: str) -> Iterator[str]:
    """Texts inside of a value that is a list or a mapping in YAML, which may be read as such."""
    if not value.lstrip().startswith(("{", "[")):
        return
    try:
        yield from _texts(yaml.safe_load(value))
    except (yaml.YAMLError, RecursionError):
        return


def _texts(value: Any) -> Iterator[str]:
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(inner)
    if isinstance(value, str) and len(value) >= WHOLE_WORDS:
        yield value


def without_secrets(text: str) -> str:
    """A configuration with `${oc.env:...}` again for what came from there, and without tokens.

    Args:
        text: the configuration as YAML.
    """
    content = yaml.safe_load(text)
    changed = kept(content)
    return text if changed == content else yaml.safe_dump(changed, sort_keys=False, allow_unicode=True)


def kept(content: Any) -> Any:
    """Plain values as files keep them: with `${oc.env:...}` for what came from there, and without tokens."""
    return _kept(content, "", _hider({value: [value] for value in _FOUND}))


def hidden(said: str) -> str:
    """A sentence with `${oc.env:...}` for what came from there, and without tokens."""
    forms = {value: [value, repr(value)[1:-1], json.dumps(value)[1:-1], " ".join(value.split())] for value in _FOUND}
    return SECRET_VALUE.sub(LEFT_OUT, _hider(forms)(said))


def _hider(forms: dict[str, list[str]]) -> Callable[[str], str]:
    """A function that puts `${oc.env:...}` for values in texts, the longest first.

    Args:
        forms: how each value may be written.
    """
    written = {form: _FOUND[value] for value, own in forms.items() for form in own if len(form) > 2}
    longest = sorted(written, key=len, reverse=True)
    words = [re.escape(form) if len(form) >= WHOLE_WORDS else rf"(?<!\w){re.escape(form)}(?!\w)" for form in longest]
    pattern = re.compile("|".join(words)) if words else None
    return lambda text: pattern.sub(lambda found: written[found[0]], text) if pattern else text


def _kept(value: Any, key: str, hide: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {name: _kept(inner, str(name), hide) for name, inner in value.items()}
    if isinstance(value, list):
        return [_kept(inner, key, hide) for inner in value]
    if key == "class_path" or isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    if (written := _FOUND.get(str(value))) and (isinstance(value, str) or len(str(value)) >= WHOLE_WORDS):
        return written
    if not isinstance(value, str) or value in _FOUND.values():
        return value
    return LEFT_OUT if SECRET_KEY.search(key) and value else SECRET_VALUE.sub(LEFT_OUT, hide(value))
