"""Two runs on the same questions, compared question by question."""

from pathlib import Path
from typing import Any, NamedTuple

from lit_pi.errors import UserError
from lit_pi.evaluations.choices.question_table import read_correct
from lit_pi.evaluations.records import latest
from lit_pi.evaluations.statistics.paired_shares import PairedShares, paired_shares

KIND = "multiple_choice"
"""The kind of its records in `results.json`."""


class PairedDifference(NamedTuple):
    """The gain of another run over a baseline, on the questions that both answered.

    Attributes:
        evaluation: whose questions they are.
        normalisation: how options are compared.
        shares: shares of the questions.
    """

    evaluation: str
    normalisation: str
    shares: PairedShares


def paired_differences(baseline: Path, other: Path) -> list[PairedDifference]:
    """The differences of two run directories, for every evaluation and normalisation that both have.

    A run counts with its last test, or its last validation where it was never tested. A rerun is not needed: the
    tables of questions that the runs have written are read.

    Raises:
        UserError: a run has no results, its table is gone, or both asked other questions under one name.
    """
    records, others = latest(baseline, KIND), latest(other, KIND)
    found = []
    for name in [name for name, record in records.items() if record["table"] and others.get(name, {}).get("table")]:
        if _asked(records[name]) != _asked(others[name]):
            raise UserError(
                f"{baseline} and {other} asked different questions as {name}: test both with the same files, "
                "max_questions and seed"
            )
        first, second = read_correct(baseline, records[name]), read_correct(other, others[name])
        for way in [way for way in first if way in second]:
            if pairs := [(right, second[way][key]) for key, right in first[way].items() if key in second[way]]:
                found.append(PairedDifference(name, way, paired_shares(pairs)))
    return found


def _asked(record: dict[str, Any]) -> tuple[str, str]:
    return record["protocol"]["task"], record["protocol"]["questions_fingerprint"]
