"""Cells of a comparison: ordinary runs of `fit` and `test`, known by a digest of all that determines them."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

from lit_pi.files import beside
from lit_pi.runs.status import read_status

CONFIG = "cell.yaml"
"""In a cell's directory: what `lit-pi` runs it by, alone too."""

Config = dict[str, Any]


class Cell:
    """One run of a comparison.

    Args:
        folder: where the cells' directories are.
        name: a name that says what it is, in signs of file names.
        command: the subcommand.
        config: its configuration, without the places of other cells.
        places: options that name what another cell made: the cell, and the path inside its directory.
        marks: further things that determine it, as what files outside were.

    Attributes:
        needs: the cells that have to be done before.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        command: Literal["fit", "test"],
        config: Config,
        places: Mapping[str, tuple["Cell", str]] | None = None,
        marks: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.command = command
        self._folder = folder
        self._config = config
        self._places = dict(places or {})
        self._marks = list(marks)
        self.needs = [cell for cell, _ in self._places.values()]

    @cached_property
    def digest(self) -> str:
        """Digest of what determines the cell: of equal cells one is run."""
        places = {option: [cell.digest, inside] for option, (cell, inside) in self._places.items()}
        content = json.dumps([self.command, self._config, places, self._marks], sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()[:8]

    @property
    def directory(self) -> Path:
        """The run directory."""
        return self._folder / f"{self.name}-{self.digest}"

    @property
    def steps(self) -> int:
        """Optimizer steps of a training."""
        return int(self._config["trainer"]["max_steps"])

    @property
    def config(self) -> Config:
        """The configuration, with all places."""
        config = deepcopy(self._config)
        for option, (cell, inside) in self._places.items():
            put(config, option, str(cell.directory / inside))
        put(config, "trainer.default_root_dir", str(self.directory))
        return config

    @property
    def words(self) -> list[str]:
        """Words after `lit-pi` that run it; again, they continue it."""
        again = ["--ckpt_path=auto"] if self.command == "fit" else []
        return [self.command, f"--config={self.directory / CONFIG}", *again]

    def write(self) -> None:
        """Write the configuration into the run directory, so that the cell can be repeated alone."""
        with beside(self.directory / CONFIG) as partial:
            partial.write_text(yaml.safe_dump(self.config, sort_keys=False))

    def is_done(self) -> bool:
        """Whether it was run to its end."""
        status = read_status(self.directory)
        return (status.get("command"), status.get("state")) == (self.command, "finished")


def put(config: Config, option: str, value: Any) -> None:
    """Set an option, named with dots, in nested mappings; of a class with `init_args`, it is one of these."""
    *groups, last = option.split(".")
    for group in groups:
        inner = config.get(group)
        config[group] = config = inner if isinstance(inner, dict) else {}
    if "class_path" in config and last not in ("class_path", "init_args"):
        config = config.setdefault("init_args", {})
    config[last] = value


def stamp(place: str) -> list[str]:
    """Marks of a model, which another one under its name has not: sizes and times of its files, if it is here."""
    path = Path(place).expanduser()
    files = sorted(path.rglob("*")) if path.is_dir() else [path] * path.is_file()
    found = [(file.relative_to(path.parent), file.stat()) for file in files if file.is_file()]
    return [place, *(f"{name} {status.st_size} {status.st_mtime_ns}" for name, status in found)]


def unique(cells: Sequence[Cell]) -> list[Cell]:
    """The cells and all that they need, each once, in an order in which they can be run."""
    found: dict[str, Cell] = {}

    def visit(cell: Cell) -> Iterator[Cell]:
        for needed in cell.needs:
            yield from visit(needed)
        yield cell

    for cell in cells:
        for each in visit(cell):
            found.setdefault(each.digest, each)
    return list(found.values())
