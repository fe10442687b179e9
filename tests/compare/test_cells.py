"""Cells are known by what determines them, and nothing else."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from lit_pi.compare.cells import Cell, put, stamp, unique
from lit_pi.compare.planning import Planner, check
from lit_pi.errors import UserError

COMMON: dict[str, Any] = {
    "trainer": {"accelerator": "cpu", "callbacks": None},
    "model": {
        "llm": {"class_path": "Pretrained", "init_args": {"path": "base"}},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}},
    },
    "data": {"train": {"class_path": "StandardLibrary"}, "evaluations": {"texts": {"class_path": "Perplexity"}}},
    "checkpoint": {},
    "sentinel": {},
}


def arm(position: str, steps: list[int], **fields: Any) -> dict[str, Any]:
    nothing: dict[str, Any] = {"learning_rate": None, "adapter": None, "train_positions": None, "options": {}}
    return {"position": {"class_path": position}, "steps": steps} | nothing | fields


def planner(arms: dict[str, Any], folder: Path = Path("here"), seeds: tuple[int, ...] = (0,), **common: Any) -> Planner:
    return Planner(folder, deepcopy(COMMON) | common, arms, seeds)


def digests(arms: dict[str, Any], **given: Any) -> dict[str, str]:
    return {point.name: point.cell.digest for point in planner(arms, **given).measured({})}


ARMS = {"base": arm("Extrapolate", [0, 2, 4]), "other": arm("YaRN", [0, 4])}


def test_checkpoints_on_the_way_come_from_one_training() -> None:
    points = planner(ARMS).measured({})
    assert [point.name for point in points] == [
        "base, as it is", "base, 2 steps", "base, 4 steps", "other, as it is", "other, 4 steps"
    ]  # fmt: skip
    trainings = [cell for cell in unique([point.cell for point in points]) if cell.command == "fit"]
    assert [cell.steps for cell in trainings] == [4, 4]
    two, four = points[1].cell, points[2].cell
    assert two.needs == [trainings[0]] and four.needs[0].digest == trainings[0].digest
    assert two.config["ckpt_path"] == str(trainings[0].directory / "checkpoints" / "at-000002.ckpt")


def test_models_as_they_are_know_no_seed() -> None:
    points = planner(ARMS, seeds=(0, 1, 2)).measured({})
    assert [point.seed for point in points if point.arm == "other"] == [None, 0, 1, 2]
    assert len({point.cell.digest for point in points}) == len(points)


def test_a_cell_is_the_same_wherever_it_lies() -> None:
    assert digests(ARMS, folder=Path("there")) == digests(ARMS)


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ({"other": arm("YaRN", [0, 4], learning_rate=1.0)}, {"other, 4 steps"}),
        ({"other": arm("YaRN", [0, 4], options={"data.batch_size": 3})}, {"other, as it is", "other, 4 steps"}),
        ({"other": arm("Interpolate", [0, 4])}, {"other, as it is", "other, 4 steps"}),
        ({"other": arm("YaRN", [0, 4], adapter={"class_path": "LoRA"})}, {"other, as it is", "other, 4 steps"}),
    ],
    ids=["rate", "option", "position", "adapter"],
)
def test_what_determines_a_cell_changes_it(change: dict[str, Any], changed: set[str]) -> None:
    before, after = digests(ARMS), digests(ARMS | change)
    assert {name for name in before if before[name] != after[name]} == changed


def test_what_a_cell_needs_is_part_of_it() -> None:
    base = Cell(Path("here"), "base", "fit", {"trainer": {"max_steps": 1}})
    longer = Cell(Path("here"), "base", "fit", {"trainer": {"max_steps": 2}})
    one, other = (Planner(Path("here"), COMMON, ARMS, (0,), made).measured({})[0].cell for made in (base, longer))
    assert one.digest != other.digest
    assert one.config["model"]["llm"]["init_args"]["path"] == f"{base.directory}"


def test_options_reach_into_classes() -> None:
    config = deepcopy(COMMON)
    put(config, "model.optimizer.lr", 5)
    put(config, "data.seed", 7)
    assert config["model"]["optimizer"]["init_args"] == {"lr": 5}
    assert config["data"]["seed"] == 7


def test_another_model_under_the_same_name_is_another(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"one")
    before = stamp(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"another")
    assert stamp(str(tmp_path)) != before
    assert stamp("owner/name") == ["owner/name"]


def test_learning_rates_are_tried_on_the_validation_split_with_the_same_budget() -> None:
    arms = {"base": arm("Extrapolate", [0, 4], learning_rate=[1e-3, 1e-4])}
    (grid,) = planner(arms).grids("texts")
    for rate, cell in grid.cells.items():
        assert cell.config["data"]["evaluations"]["texts"]["init_args"]["split"] == "validation"
        assert cell.needs[0].config["model"]["optimizer"]["init_args"]["lr"] == rate
        assert cell.needs[0].steps == 4
    chosen = planner(arms).measured({"base": 1e-4})[-1]
    assert chosen.cell.needs[0].digest == grid.cells[1e-4].needs[0].digest


REFUSED = {
    "nothing": ({}, (0,), COMMON, None, "nothing to compare"),
    "seeds": (ARMS, (0, 0), COMMON, None, "each of them once"),
    "no data": (ARMS, (0,), COMMON | {"data": {"train": None, "evaluations": {"a": 1}}}, None, "nothing to train on"),
    "no evaluation": (ARMS, (0,), COMMON | {"data": {"train": 1, "evaluations": {}}}, None, "nothing is measured"),
    "a path": ({"a/b": ARMS["base"]}, (0,), COMMON, None, "directories are named after it"),
    "no steps": ({"a": arm("YaRN", [])}, (0,), COMMON, None, "steps is empty"),
    "rates": ({"a": arm("YaRN", [3], learning_rate=[1, 2])}, (0,), COMMON, None, "in `tune_on`"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_planned_is_refused(case: str) -> None:
    arms, seeds, common, tune_on, said = REFUSED[case]
    with pytest.raises(UserError, match=said):
        check(arms, seeds, common, tune_on)
