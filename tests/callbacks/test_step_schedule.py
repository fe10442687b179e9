"""Evaluations are measured at the optimizer steps that they ask for, whatever batches and epochs are."""

import json
from pathlib import Path

import pytest

from lit_pi.cli import LitPiCLI
from lit_pi.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")

EPOCH = ["--data.batch_size=1", "--trainer.limit_train_batches=7", "--trainer.accumulate_grad_batches=3"]
"""Steps of 3, 3 and 1 micro-batches."""


def measured(run: Path, tiny: list[str], every: int | None, *words: str) -> list[int]:
    """Steps at which a run of 11 steps measured."""
    words = (*EPOCH, "--trainer.max_steps=11", "--trainer.num_sanity_val_steps=0", *words)
    asked = [] if every is None else [f"--data.evaluations.texts.init_args.every_n_steps={every}"]
    LitPiCLI(["fit", *tiny, *asked, f"--trainer.default_root_dir={run}", *words])
    results = run / "results.json"
    return [each["step"] for each in json.loads(results.read_text())["records"]] if results.exists() else []


@pytest.mark.parametrize(
    ("every", "words", "steps"),
    [
        (4, ("--data.evaluate_last_step=true",), [4, 8, 11]),
        (4, ("--trainer.val_check_interval=2",), [4, 8]),
        (None, ("--trainer.val_check_interval=5", "--trainer.check_val_every_n_epoch=null"), [2, 4, 7, 8, 11]),
        (50, ("--data.evaluate_last_step=true", "--trainer.max_steps=-1", "--trainer.max_epochs=2"), [6]),
    ],
    ids=["and the last", "not at others", "after the step", "the last of an epoch"],
)
def test_steps_count(
    every: int | None, words: tuple[str, ...], steps: list[int], tmp_path: Path, tiny: list[str]
) -> None:
    assert measured(tmp_path / "run", tiny, every, *words) == steps


def test_a_continued_run_goes_on_with_the_schedule(tmp_path: Path, tiny: list[str]) -> None:
    measured(tmp_path / "run", tiny, 4, "--trainer.max_steps=5")
    assert measured(tmp_path / "run", tiny, 4, "--ckpt_path=last") == [4, 8]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--trainer.val_check_interval=00:00:10:00", "trainer.val_check_interval is a time, and an evaluation is "),
        ("--trainer.check_val_every_n_epoch=2", "check_val_every_n_epoch is 2, and an evaluation is measured every 4"),
    ],
)
def test_other_clocks_are_refused(words: str, said: str, tmp_path: Path, tiny: list[str]) -> None:
    with pytest.raises(UserError, match=said):
        measured(tmp_path / "run", tiny, 4, words)
