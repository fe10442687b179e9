"""`lit-pi compare`."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from jsonargparse import Namespace, strip_meta
from jsonargparse.typing import Path_fr
from rich.console import Console
from rich.table import Table

from lit_pi.compare.arms import Arm
from lit_pi.compare.cells import Cell, Config, unique
from lit_pi.compare.control import differences
from lit_pi.compare.planning import Measured, Planner, check
from lit_pi.compare.running import Runner
from lit_pi.compare.tuning import best
from lit_pi.errors import RunError, UserError
from lit_pi.evaluations.records import Run
from lit_pi.planning.plan import Plan
from lit_pi.planning.trainer import GIB
from lit_pi.ranges import Range, Seed
from lit_pi.report import write_report
from lit_pi.report.entries import Entry
from lit_pi.runs.owner import owned

CELLS, REPORT = "cells", "report"
"""Folders of a comparison."""


def compare(
    arms: dict[str, Arm],
    output: Path = Path("runs/compare"),
    pretrain: Path_fr | None = None,
    seeds: Sequence[Seed] = (0,),
    baseline: str | None = None,
    tune_on: str | None = None,
    only: Sequence[str] = (),
    max_cells: Annotated[int, Range(1)] | None = None,
    dry_run: bool = False,
    *,
    common: Config,
    base: Config | None = None,
    predict: Callable[[Config], Plan],
) -> None:
    """Compare position strategies on the same data, seeds, budget and evaluations, each cell an ordinary run.

    Options of `fit` hold for every arm; `data.evaluations` are measured. Cells that were run before are not run again,
    and one that fails loses no other.

    Args:
        arms: what is compared, by name: position strategies, and how the model is trained under each.
        output: directory to write to.
        pretrain: configuration of a `fit` that makes the model which all arms extend, instead of `model.llm`.
        seeds: seeds of the trainings; three or more let the report speak of strategies, and not of checkpoints alone.
        baseline: the arm that the others are compared with; the first by default.
        tune_on: the evaluation whose validation split chooses between the learning rates of an arm.
        only: arms to run; all by default.
        max_cells: run so many cells at most, and report what is there.
        dry_run: list the cells, with the tokens, time and memory that each training will take, and run none.
        common: the options of `fit`, as plain values.
        base: those of `pretrain`.
        predict: plans a step of a training.

    Raises:
        UserError: the comparison cannot be planned.
        RunError: a cell failed; the others are reported.
    """
    plain = {name: _plain(arm) for name, arm in arms.items()}
    check(plain, seeds, common, tune_on)
    chosen = _chosen(plain, only, baseline)
    folder = output.absolute() / CELLS
    made = None if base is None else Cell(folder, "base", "fit", base)
    planner = Planner(folder, common, chosen, seeds, made)
    grids = planner.grids(tune_on) if tune_on else []
    tried = [cell for grid in grids for cell in grid.cells.values()]
    if dry_run:
        # Learning rates that are not chosen yet stand for each other.
        rates = {grid.arm: next(iter(grid.cells)) for grid in grids}
        _list(unique([*tried, *(point.cell for point in planner.measured(rates))]), base, predict)
        return
    with owned(output):
        runner = Runner(_say)
        done = runner.run(unique(tried), max_cells)
        rates = {grid.arm: best(grid) for grid in grids if all(cell.is_done() for cell in grid.cells.values())}
        ready = {
            name: arm for name, arm in chosen.items() if name in rates or not isinstance(arm["learning_rate"], list)
        }
        points = Planner(folder, common, ready, seeds, made).measured(rates)
        runner.run(unique([point.cell for point in points]), max_cells and max_cells - done)
        if measured := [point for point in points if point.cell.is_done()]:
            _report(measured, output, runner.failed.values())
    if runner.failed:
        number = len(runner.failed)
        raise RunError(f"{number} cell{'s' * (number > 1)} failed, and the same command tries again")


def _chosen(arms: Mapping[str, Config], only: Sequence[str], baseline: str | None) -> dict[str, Config]:
    """The arms that are asked for, the baseline first."""
    for name in (*only, *([] if baseline is None else [baseline])):
        if name not in arms:
            raise UserError(f"there is no arm {name}: there are {', '.join(arms)}")
    first = baseline or next(iter(arms))
    return {name: arms[name] for name in (first, *arms) if not only or name in only or name == first}


def _plain(arm: Arm | Namespace) -> Config:
    """An arm as plain values, as configurations have them."""
    values = strip_meta(arm).as_dict() if isinstance(arm, Namespace) else dict(vars(arm))
    rate = values["learning_rate"]
    values["learning_rate"] = [float(each) for each in rate] if isinstance(rate, list | tuple) else rate
    return values | {"options": values["options"] or {}}


def _report(points: Sequence[Measured], output: Path, failed: Iterable[str]) -> None:
    """Show what was found, whether the cells differ in more than what is compared, and why some failed."""
    runs: dict[tuple[str, int], list[Run]] = {}
    for point in points:
        name = point.name if point.seed is None else f"{point.name}, seed {point.seed}"
        runs.setdefault((point.arm, point.steps), []).append(Run(name, point.cell.directory))
    warnings = [f"cells differ in more than is compared: {difference}" for difference in differences(points)]
    for warning in warnings:
        print(f"Warning: {warning}")
    entries = [Entry(arm, steps, tuple(own)) for (arm, steps), own in runs.items()]
    write_report(entries, output / REPORT, [*warnings, *(f"a cell failed: {reason}" for reason in failed)])


def _list(cells: Sequence[Cell], base: Config | None, predict: Callable[[Config], Plan]) -> None:
    """Show the cells, and what trainings will take; how long a test takes, it says itself when it begins."""
    table = Table("cell", "state", title="Cells")
    for column in ("tokens", "time", "GiB"):
        table.add_column(column, justify="right")
    plans: dict[str, Plan] = {}
    for cell in cells:
        cost: list[str] = []
        if cell.command == "fit":
            config = cell.config
            if base is not None and cell.needs:  # the model is not there yet, and as large as it was
                config["model"]["llm"] = base["model"]["llm"]
            steps = cell.steps * int(config["trainer"]["accumulate_grad_batches"])
            key = json.dumps({group: config[group] for group in ("model", "data")}, sort_keys=True, default=str)
            plans[key] = plan = plans.get(key) or predict(config)
            time = timedelta(seconds=round(steps * plan.seconds))
            cost = [f"{steps * plan.tokens:,}", str(time), f"{sum(plan.peak.values()) / GIB:,.2f}"]
        table.add_row(f"{cell.name}-{cell.digest}", "done" if cell.is_done() else "to do", *cost)
    Console().print(table)


def _say(cell: Cell, what: str) -> None:
    print(f"{cell.name}: {what}", flush=True)
