"""Two runs on the same questions, compared question by question."""

from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import binomtest

from lit_pi.errors import UserError
from lit_pi.evaluation.intervals import newcombe
from lit_pi.evaluation.question_table import read_correct
from lit_pi.evaluation.results import load_records

KIND = "multiple_choice"
"""Of the records in `results.json`."""


class PairedDifference(NamedTuple):
    """What another run gains over a baseline, on the questions that both answered.

    Attributes:
        evaluation: whose questions they are.
        normalisation: how options are compared.
        n: questions.
        baseline: accuracy of the baseline.
        other: accuracy of the other run.
        difference: `other - baseline`.
        low: lower end of its 95 % interval (Newcombe 1998, method 10).
        high: upper end.
        only_baseline: questions that only the baseline has right.
        only_other: questions that only the other run has right.
        p: two-sided, that of these each is as likely as the other (McNemar's exact test).
    """

    evaluation: str
    normalisation: str
    n: int
    baseline: float
    other: float
    difference: float
    low: float
    high: float
    only_baseline: int
    only_other: int
    p: float


def paired_differences(baseline: Path, other: Path) -> list[PairedDifference]:
    """The differences of two run directories, for every evaluation and normalisation that both have.

    A run counts with its last test, or its last validation where it was never tested. A rerun is not needed: the
    tables of questions that the runs have written are read.

    Raises:
        UserError: a run has no results, its table is gone, or both asked other questions under one name.
    """
    records, others = _latest(baseline), _latest(other)
    found = []
    for name in [name for name in records if name in others]:
        if _asked(records[name]) != _asked(others[name]):
            raise UserError(
                f"{baseline} and {other} asked different questions as {name}: test both with the same files, "
                "max_questions and seed"
            )
        first, second = read_correct(baseline / records[name]["table"]), read_correct(other / others[name]["table"])
        ways = [way for way in first if way in second and first[way].keys() & second[way].keys()]
        found += [_compare(name, way, first[way], second[way]) for way in ways]
    return found


def _latest(run: Path) -> dict[str, dict[str, Any]]:
    records = [record for record in load_records(run) if record["kind"] == KIND and record["table"]]
    # Of an evaluation's records the last one here stays: a test, else the latest step.
    ordered = sorted(records, key=lambda record: (record["stage"] == "test", record["step"]))
    return {record["evaluation"]: record for record in ordered}


def _asked(record: dict[str, Any]) -> tuple[str, str]:
    return record["protocol"]["task"], record["protocol"]["questions_fingerprint"]


def _compare(evaluation: str, normalisation: str, first: dict[str, bool], second: dict[str, bool]) -> PairedDifference:
    pairs = [(right, second[name]) for name, right in first.items() if name in second]
    n = len(pairs)
    both, only_first, only_second, neither = (
        pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))
    )
    low, high = newcombe(both, only_first, only_second, neither)
    differ = only_first + only_second
    return PairedDifference(
        evaluation=evaluation,
        normalisation=normalisation,
        n=n,
        baseline=(both + only_first) / n,
        other=(both + only_second) / n,
        difference=(only_second - only_first) / n,
        low=low,
        high=high,
        only_baseline=only_first,
        only_other=only_second,
        p=float(binomtest(only_second, differ).pvalue) if differ else 1.0,
    )
