"""A table of questions in Parquet: what a model scored for each option, and what it chose."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_pi.evaluations.choices.scores import Normalisation, ScoredQuestion
from lit_pi.evaluations.parquet import read_columns

CHOSEN, CORRECT = "chosen_", "correct_"
"""Before a normalisation's name: the columns of its choices, and of whether they are right."""


def question_columns(
    questions: Sequence[ScoredQuestion], normalisations: Sequence[Normalisation]
) -> dict[str, Sequence]:
    """Return a row for each question, by column.

    Its columns are `id`, `answer` (index of the right option), for each option `log_likelihood` and
    `log_likelihood_alone` (nats; after its context, and after the answer context), `characters`, `bytes` and `tokens`,
    and for each normalisation `chosen_NAME` (index of the option, -1 for none) and `correct_NAME`.
    """
    columns: dict[str, Sequence] = {
        "id": [scored.question.id for scored in questions],
        "answer": [scored.question.answer for scored in questions],
        "log_likelihood": [list(scored.log_likelihood) for scored in questions],
        "log_likelihood_alone": [list(scored.alone) for scored in questions],
        "characters": [list(scored.question.characters) for scored in questions],
        "bytes": [list(scored.question.bytes) for scored in questions],
        "tokens": [list(scored.question.tokens) for scored in questions],
    }
    for name in normalisations:
        columns[f"{CHOSEN}{name}"] = [scored.chosen(name) for scored in questions]
        columns[f"{CORRECT}{name}"] = [scored.correct(name) for scored in questions]
    return columns


def read_correct(run: Path, record: Mapping[str, Any]) -> dict[str, dict[str, bool]]:
    """For each normalisation, whether each question's choice in a run's record is right, by the question's id.

    Raises:
        UserError: there is no such table, or it is damaged.
    """
    columns = read_columns(run, record)
    ids, names = columns["id"], [name for name in columns if name.startswith(CORRECT)]
    return {name.removeprefix(CORRECT): dict(zip(ids, columns[name], strict=True)) for name in names}
