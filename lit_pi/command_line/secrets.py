"""Secrets of a configuration, which stay out of the files that are kept of it."""

import re
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

_WRITTEN: set[str] = set()
"""Values as they were written that take something from the environment."""
ENVIRONMENT = "${oc.env:"
SECRET_KEY = re.compile(r"(^|_)(password|passwd|secret|api_key|(api|auth|access|hub|hf|bearer)_token)$|^token$")
"""Names of options that hold a secret; `bos_token` is none."""
SECRET_VALUE = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,})")
"""Tokens of the Hugging Face hub, of GitHub, and keys as several services give them."""
LEFT_OUT = "(a secret, not kept)"


def remember(value: str) -> None:
    """Remember a value as it was written, if it takes something from the environment."""
    if ENVIRONMENT in value:
        _WRITTEN.add(value)


def without_secrets(text: str) -> str:
    """A configuration with `${oc.env:...}` again for what came from there, and without tokens.

    Args:
        text: the configuration as YAML.
    """
    written = {str(found): value for value in _WRITTEN if (found := _resolved(value)) not in (None, "")}
    content = yaml.safe_load(text)
    kept = _kept(content, "", written)
    return text if kept == content else yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def _resolved(value: str) -> Any:
    try:
        return OmegaConf.create({"value": value}).value
    except OmegaConfBaseException:  # it takes something from elsewhere in the configuration too
        return None


def _kept(value: Any, key: str, written: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _kept(inner, str(name), written) for name, inner in value.items()}
    if isinstance(value, list):
        return [_kept(inner, key, written) for inner in value]
    if not isinstance(value, str):
        return value
    if value in written:
        return written[value]
    return LEFT_OUT if SECRET_KEY.search(key) and value else SECRET_VALUE.sub(LEFT_OUT, value)
