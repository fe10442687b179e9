"""Presets: the YAML files that are installed with lit_pi."""

from importlib import resources
from pathlib import Path

import yaml

from lit_pi.errors import UserError


def preset(word: str) -> str:
    """A YAML file's path: as given if it exists, else the preset of that name among the installed `configs`.

    Raises:
        UserError: the file is not valid YAML.
    """
    option, equals, value = word.rpartition("=")
    if not value.endswith(".yaml"):
        return word
    path = Path(value)
    if not path.exists():
        installed = Path(str(resources.files("lit_pi.configs"))) / value.removeprefix("configs/")
        path = installed if installed.is_file() else path
    if path.is_file():
        try:
            yaml.safe_load(path.read_text())
        except yaml.YAMLError as error:
            raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    return f"{option}{equals}{path}"
