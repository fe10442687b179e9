"""Two runs compared question by question, out of the tables that they have written."""

from math import comb
from pathlib import Path
from typing import Any

import pytest

from lit_pi.errors import UserError
from lit_pi.evaluations.choices.paired import paired_differences
from lit_pi.evaluations.choices.question_table import question_columns
from lit_pi.evaluations.choices.scores import ChoiceQuestion, ScoredQuestion
from lit_pi.evaluations.parquet import write_columns
from lit_pi.evaluations.records import add_record
from lit_pi.evaluations.statistics.intervals import newcombe

NEITHER, FIRST, SECOND, BOTH = (0, 0), (1, 0), (0, 1), (1, 1)


def run(
    folder: Path, right: list[int], name: str = "piqa", stage: str = "test", step: int = 0, fingerprint: str = "f"
) -> Path:
    """A run directory whose model has the questions right that say 1; question 0 is called q0."""
    questions = [
        ScoredQuestion(
            ChoiceQuestion(f"q{number}", 0, (0, 1), (), (1, 1), (1, 1), (1, 1)), (-1.0, -2.0 + 2 * wrong), ()
        )
        for number, wrong in enumerate(1 - value for value in right)
        if right[number] >= 0
    ]
    table = f"questions/{name}-{stage}-{step}.parquet"
    write_columns(folder / table, question_columns(questions, ["none", "tokens"]))
    record: dict[str, Any] = {"kind": "multiple_choice", "evaluation": name, "stage": stage, "step": step}
    protocol = {"task": "PIQA", "questions_fingerprint": fingerprint}
    add_record(folder, record | {"table": table, "protocol": protocol})
    return folder


def test_what_only_one_has_right_gives_difference_interval_and_p(tmp_path: Path) -> None:
    pairs = [BOTH] * 20 + [FIRST] * 9 + [NEITHER] * 6 + [SECOND] * 2
    first, second = (run(tmp_path / name, [pair[place] for pair in pairs]) for place, name in enumerate("ab"))
    found = paired_differences(first, second)
    assert [(entry.evaluation, entry.normalisation) for entry in found] == [("piqa", "none"), ("piqa", "tokens")]
    for entry in [entry.shares for entry in found]:
        assert (entry.n, entry.only_baseline, entry.only_other) == (37, 9, 2)
        assert (entry.baseline, entry.other, entry.difference) == pytest.approx((29 / 37, 22 / 37, -7 / 37))
        assert (entry.low, entry.high) == newcombe(20, 9, 2, 6) and entry.low < entry.difference < entry.high < 0
        # A fair coin shows one side at most twice in 11 throws, on either side.
        assert entry.p == pytest.approx(2 * sum(comb(11, k) for k in range(3)) / 2**11)
    turned = paired_differences(second, first)[0].shares
    assert (turned.difference, turned.low, turned.p) == pytest.approx(
        (7 / 37, -found[0].shares.high, found[0].shares.p)
    )


def test_runs_that_agree_do_not_differ(tmp_path: Path) -> None:
    (entry, _) = paired_differences(run(tmp_path / "a", [1, 0, 1]), run(tmp_path / "b", [1, 0, 1]))
    shares = entry.shares
    assert (shares.difference, shares.p, shares.n) == (0, 1, 3) and shares.low < 0 < shares.high


def test_questions_that_one_run_left_out_do_not_count(tmp_path: Path) -> None:
    (entry, _) = paired_differences(run(tmp_path / "a", [-1, 1, 0, 1]), run(tmp_path / "b", [1, 1, 1, -1]))
    shares = entry.shares
    assert (shares.n, shares.baseline, shares.other, shares.only_other) == (2, 0.5, 1, 1)
    assert paired_differences(run(tmp_path / "c", [-1, 1]), run(tmp_path / "d", [1, -1])) == []


def test_the_last_test_counts_and_only_what_both_have(tmp_path: Path) -> None:
    first = run(run(run(tmp_path / "a", [0, 0], stage="fit", step=9), [1, 1]), [1, 0], name="race")
    second = run(run(tmp_path / "b", [1, 0], stage="fit", step=2), [0, 0], stage="fit", step=4)
    second = run(second, [1, 1], name="boolq")
    (entry, _) = paired_differences(first, second)
    assert (entry.evaluation, entry.shares.baseline, entry.shares.other) == ("piqa", 1, 0)


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    first = run(tmp_path / "a", [1, 0])
    with pytest.raises(UserError, match=r"a and .*b asked different questions as piqa: test both with the same files"):
        paired_differences(first, run(tmp_path / "b", [1, 0], fingerprint="other"))
    second = run(tmp_path / "c", [1, 0])
    (table,) = (second / "questions").iterdir()
    table.write_text("nothing")
    with pytest.raises(UserError, match=r"cannot read the table .*parquet .*: test that run again"):
        paired_differences(first, second)
    table.unlink()
    with pytest.raises(UserError, match="cannot read the table"):
        paired_differences(first, second)
    (tmp_path / "d").mkdir()
    with pytest.raises(UserError, match="no results"):
        paired_differences(first, tmp_path / "d")
    add_record(tmp_path / "d", {"kind": "perplexity_curve", "evaluation": "books", "stage": "test", "step": 0})
    assert paired_differences(first, tmp_path / "d") == []
