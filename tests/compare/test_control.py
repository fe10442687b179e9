"""A difference beside the strategy is named, with who has what."""

from pathlib import Path
from typing import Any

import pytest

from lit_pi.compare.cells import Cell
from lit_pi.compare.control import differences
from lit_pi.compare.planning import Measured
from lit_pi.evaluations.records import add_record

TRAINING = {
    "initial_weights": "aa", "sequences": "bb", "tokens": 100, "optimizer": "AdamW", "learning_rate": 1e-3,
    "precision": "32-true", "attention_kernel": "flash_attention", "seed": 0, "steps": 4, "seconds": 1.0, "gib": 1.0,
    "position": {"class": "YaRN"},
}  # fmt: skip


def measured(folder: Path, arm: str, seed: int = 0, **changes: Any) -> Measured:
    cell = Cell(folder, f"{arm}-{seed}", "test", {"trainer": {}})
    training = TRAINING | {"seed": seed} | {name: changes[name] for name in changes if name in TRAINING}
    protocol = {"attention_kernel": "flash_attention", "precision": "32-true", "compute_dtype": "float32"}
    protocol |= {"model": {"path": "base"}, "position": {"class": arm}, "rope": {"original_context": 8}}
    record = {
        "kind": "own", "evaluation": "texts", "stage": "test", "step": 0, "windows": "cc", "asked": "dd",
        "history": [training], "protocol": protocol | {n: v for n, v in changes.items() if n in protocol},
    }  # fmt: skip
    add_record(cell.directory, record | {name: value for name, value in changes.items() if name in record})
    return Measured(arm, 4, seed, cell)


def test_strategies_alone_are_no_difference(tmp_path: Path) -> None:
    points = [measured(tmp_path, arm, seed) for arm in ("one", "two") for seed in (0, 1)]
    assert differences(points) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"initial_weights": "zz"}, "the weights that training began with: aa in one, 4 steps; zz in two, 4 steps"),
        ({"sequences": "zz"}, "the training sequences or their order: bb in one, 4 steps; zz in two, 4 steps"),
        ({"learning_rate": 0.5}, "the learning rate: 0.001 in one, 4 steps; 0.5 in two, 4 steps"),
        ({"windows": "zz"}, "texts: the tokens that were measured: cc in one, 4 steps; zz in two, 4 steps"),
        ({"asked": "zz"}, "texts: the evaluation's options: dd in one, 4 steps; zz in two, 4 steps"),
        ({"compute_dtype": "bfloat16"}, "texts: the dtype of matrices: float32 in one, 4 steps; bfloat16 in two, 4"),
        ({"model": "other"}, "texts: the model: {'path': 'base'} in one, 4 steps; other in two, 4 steps"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_differs_is_named(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    (found,) = differences([measured(tmp_path, "one"), measured(tmp_path, "two", **change)])
    assert str(found).startswith(said)
