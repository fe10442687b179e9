"""RACE: English examinations, an article and questions on it."""

import json
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from lit_pi.data.corpora.readers import Record
from lit_pi.errors import UserError
from lit_pi.evaluations.choices.tasks.task import Question, Task, choice, text

REPOSITORY = "hf://datasets/ehovy/race@refs/convert/parquet"
LETTERS = "ABCD"


class RACE(Task):
    """RACE (Lai et al. 2017, arXiv 1704.04683): every question of the test split, 1,436 of middle and 3,498 of high.

    Records with `article`, `question`, `options` and `answer` ("A" to "D"), one a question, in JSON lines or Parquet;
    or with `article`, `questions`, `options` and `answers`, one an article, in JSON lines or in the original's `.txt`
    files, one JSON object each. Each question stands alone after its article, without the article's other questions
    and their answers. Prompt and comparison with P(option | "A:") of Brown et al. 2020 (section 2.4, figures G.1 and
    G.3), whom LLaMA follows (Touvron et al. 2023, section 3.3).

    Args:
        level: which examinations on the hub, `middle` or `high` school.
        files: records in this format (see `TextFiles` for patterns); by default those of the level, ehovy/race on
            the hub.
    """

    prompt: ClassVar = "Article:\n{article}\n\nQ: {question}\n\nA:"
    answer_context: ClassVar = "A:"
    normalisation: ClassVar = "answer_context"
    fields: ClassVar = ("article", "question", "options", "answer")
    bring: ClassVar = (
        "bring RACE (the original folder of `.txt` files, or JSON lines or Parquet with `article`, `question`, "
        "`options` and `answer`), name it in `files`"
    )

    def __init__(self, level: Literal["middle", "high"] = "high", files: str | list[str] | None = None) -> None:
        super().__init__(files or f"{REPOSITORY}/{level}/test/*.parquet")

    def _questions(self, record: Record) -> Iterator[Question]:
        for flat in _flat(record):
            context = self.prompt.format(article=text(flat, "article"), question=text(flat, "question"))
            texts = _list(flat, "options")
            options = [text(flat._replace(fields={"options": option}), "options") for option in texts]
            if not 2 <= len(options) <= len(LETTERS):
                raise UserError(f"{flat.place} has {len(options)} options: RACE has 2 to {len(LETTERS)}")
            answer = choice(flat, "answer", LETTERS[: len(options)])
            yield Question(flat.id, (context,) * len(options), tuple(f" {option}" for option in options), answer)


def _flat(record: Record) -> Iterator[Record]:
    """A record for each question."""
    if record.fields.keys() == {"article"}:
        record = record._replace(fields=_parsed(record))
    if "questions" not in record.fields:
        yield record
        return
    questions, options, answers = (_list(record, field) for field in ("questions", "options", "answers"))
    if not len(questions) == len(options) == len(answers):
        raise UserError(
            f"{record.place} has {len(questions)} questions, {len(options)} lists of options and {len(answers)} "
            "answers: correct or remove it"
        )
    for number, asked in enumerate(zip(questions, options, answers, strict=True), start=1):
        fields = {"article": record.fields.get("article"), **dict(zip(RACE.fields[1:], asked, strict=True))}
        yield Record(f"{record.id}:{number}", f"{record.place} question {number},", fields)


def _parsed(record: Record) -> dict[str, Any]:
    """The JSON object that is the whole of an original file."""
    try:
        fields = json.loads(text(record, "article"))
    except json.JSONDecodeError as error:
        raise UserError(f"{record.place} is not a JSON object ({error}): bring the original files of RACE") from error
    return fields if isinstance(fields, dict) else {}


def _list(record: Record, field: str) -> list[Any]:
    value = record.fields.get(field)
    if not isinstance(value, list):
        raise UserError(f"{record.place} holds {value!r} in {field!r}, not a list: bring the dataset's own records")
    return value
