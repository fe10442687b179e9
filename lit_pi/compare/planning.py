"""From arms to cells."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

from lit_pi.compare.cells import Cell, Config, put, stamp
from lit_pi.errors import UserError
from lit_pi.files import file_name

FIT_ONLY = ("checkpoint", "sentinel")
"""Groups of options that only training reads."""


class Measured(NamedTuple):
    """A point of a comparison: an arm after some steps of one seed's training, and the cell that measures it.

    Attributes:
        arm: the arm's name.
        steps: optimizer steps.
        seed: that of the training; None before the first step.
        cell: the test.
    """

    arm: str
    steps: int
    seed: int | None
    cell: Cell

    @property
    def name(self) -> str:
        """A short name."""
        return f"{self.arm}, {self.steps:,} steps" if self.steps else f"{self.arm}, as it is"


class Grid(NamedTuple):
    """Cells that measure an arm under each of several learning rates on the validation split.

    Attributes:
        arm: the arm's name.
        cells: the tests, by learning rate.
    """

    arm: str
    cells: dict[float, Cell]


class Planner:
    """Makes the cells of a comparison.

    Args:
        folder: where the cells' directories are.
        common: the configuration of `fit` that all arms share; `data.evaluations` are measured.
        arms: what is different, by name, as plain values.
        seeds: seeds of the trainings.
        base: the cell that trains the model which is extended, where one does.
    """

    def __init__(
        self,
        folder: Path,
        common: Config,
        arms: Mapping[str, Config],
        seeds: Sequence[int],
        base: Cell | None = None,
    ) -> None:
        self._folder, self._common, self._arms, self._seeds, self._base = folder, common, arms, seeds, base
        model = common["model"]["llm"]
        self._marks = [] if base else stamp(str((model.get("init_args") or {}).get("path", model)))

    def measured(self, rates: Mapping[str, float]) -> list[Measured]:
        """Every arm after each of its steps, zero-shot first.

        Args:
            rates: learning rates that were found for arms which state several.
        """
        found = []
        for name, arm in self._arms.items():
            rate = rates.get(name, arm["learning_rate"])
            for steps in sorted(set(arm["steps"])):
                for seed in self._seeds if steps else (None,):
                    cell = self._test(name, arm, steps, seed, rate)
                    found.append(Measured(name, steps, seed, cell))
        return found

    def grids(self, evaluation: str) -> list[Grid]:
        """Tests by which to choose the learning rates of arms that state several.

        Args:
            evaluation: the one of `data.evaluations` whose validation split decides.
        """
        found = []
        for name, arm in self._arms.items():
            if isinstance(arm["learning_rate"], list) and max(arm["steps"]):
                tests = {
                    rate: self._test(name, arm, max(arm["steps"]), self._seeds[0], rate, tune_on=evaluation)
                    for rate in arm["learning_rate"]
                }
                found.append(Grid(name, tests))
        return found

    def _test(
        self, name: str, arm: Config, steps: int, seed: int | None, rate: float | None, tune_on: str | None = None
    ) -> Cell:
        config = self._shared(arm)
        for group in FIT_ONLY:
            config.pop(group, None)
        config["trainer"] |= {"max_steps": -1}
        data = config["data"]
        data["train"] = None
        if tune_on is not None:
            data["evaluations"] = {tune_on: deepcopy(data["evaluations"][tune_on])}
            put(data["evaluations"], f"{tune_on}.split", "validation")
        places = self._places()
        said = file_name(name).replace(" ", "-")
        if steps:
            assert seed is not None
            training = self._training(name, arm, seed, rate)
            places["ckpt_path"] = (training, f"checkpoints/at-{steps:06d}.ckpt")
            said += f"-at-{steps}-seed-{seed}"
        said += "-validation" if tune_on else ""
        return Cell(self._folder, said, "test", config, places, self._marks)

    def _training(self, name: str, arm: Config, seed: int, rate: float | None) -> Cell:
        config = self._shared(arm)
        steps = sorted({each for each in arm["steps"] if each})
        config["trainer"] |= {"max_steps": steps[-1], "limit_val_batches": 0, "num_sanity_val_steps": 0}
        callbacks = config["trainer"].get("callbacks") or []
        saving = {"class_path": "lit_pi.callbacks.CheckpointAt", "init_args": {"steps": steps}}
        config["trainer"]["callbacks"] = [*(callbacks if isinstance(callbacks, list) else [callbacks]), saving]
        config["data"]["evaluations"] = None
        config["seed_everything"] = seed
        config["data"]["seed"] = seed
        if rate is not None:
            put(config, "model.optimizer.lr", rate)
        of = f"-lr-{rate:g}" if isinstance(arm["learning_rate"], list) else ""
        said = f"{file_name(name).replace(' ', '-')}-seed-{seed}{of}"
        return Cell(self._folder, said, "fit", config, self._places(), self._marks)

    def _shared(self, arm: Config) -> Config:
        config = deepcopy(self._common)
        config["model"]["position"] = deepcopy(arm["position"])
        for option in ("adapter", "train_positions"):
            if arm[option] is not None:
                config["model"][option] = deepcopy(arm[option])
        for option, value in arm["options"].items():
            put(config, option, value)
        return config

    def _places(self) -> dict[str, tuple[Cell, str]]:
        return {"model.llm.path": (self._base, "")} if self._base else {}


def check(arms: Mapping[str, Config], seeds: Sequence[int], common: Config, tune_on: str | None) -> None:
    """Check that a comparison can be planned.

    Raises:
        UserError: it cannot.
    """
    if not arms:
        raise UserError("there is nothing to compare: name position strategies in `arms`")
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError("`seeds` of a comparison are one or more, each of them once")
    if not common["data"]["evaluations"]:
        raise UserError("nothing is measured: name at least one evaluation in `data.evaluations`")
    for name, arm in arms.items():
        if file_name(name) != name:
            raise UserError(f"an arm is called {name!r}, and directories are named after it: take letters and digits")
        if not arm["steps"]:
            raise UserError(f"arms.{name}.steps is empty: 0 measures the model as it is")
        if any(arm["steps"]) and not common["data"]["train"]:
            raise UserError(f"arms.{name} is trained, and there is nothing to train on: name a corpus in `data.train`")
        if isinstance(arm["learning_rate"], list) and tune_on not in common["data"]["evaluations"]:
            raise UserError(
                f"arms.{name} states several learning rates: name the one of `data.evaluations` that decides between "
                "them in `tune_on`"
            )
