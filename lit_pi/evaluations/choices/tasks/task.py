"""The questions that a task of multiple choice gives to its evaluation."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from lit_pi.data.corpora.files import all_files, on_hub
from lit_pi.data.corpora.readers import Reading, Record, Undecodable, read_records
from lit_pi.errors import UserError
from lit_pi.evaluations.choices.scores import Normalisation


class Question(NamedTuple):
    """One question: each option follows its own context, and one of them is right.

    Attributes:
        id: what a person recognises it by: `file:line`, and the question's number where a line holds several.
        contexts: for each option, what stands before it; the same text for all in most tasks.
        options: what follows, with the space before it.
        answer: index of the right one.
    """

    id: str
    contexts: tuple[str, ...]
    options: tuple[str, ...]
    answer: int


class Task(ABC):
    """Questions out of files of their dataset's own format, as zero-shot prompts.

    Args:
        files: a path, folder, glob or `hf://datasets/OWNER/NAME@REVISION/GLOB`, or a list of them (see `TextFiles`).
    """

    prompt: ClassVar[str]
    """The context of an option, with what is filled in, in braces."""
    answer_context: ClassVar[str | None] = None
    """Text before an option instead, to learn how likely it is without its question; None where no one asks."""
    normalisation: ClassVar[Normalisation]
    """How the field compares the options of this task, the first figure to quote."""
    fields: ClassVar[Sequence[str]]
    """The fields of a record that are read."""
    bring: ClassVar[str]
    """Advice for when the hub cannot be reached."""

    def __init__(self, files: str | list[str]) -> None:
        self.files = [files] if isinstance(files, str) else files

    def questions(self) -> list[Question]:
        """All questions, file after file.

        Raises:
            UserError: the files cannot be read, hold no question, or one that is not of the format.
        """
        found = [question for record in self._records() for question in self._questions(record)]
        if not found:
            raise UserError(f"there are no questions in {', '.join(self.files)}: {self.bring}")
        (most, count), *_ = Counter(question.id for question in found).most_common(1)
        if count > 1:
            raise UserError(f"{count} questions are called {most}: give the files of {type(self).__name__} other names")
        return found

    def describe(self) -> dict[str, Any]:
        """Name, files and prompt as plain JSON."""
        return {
            "task": type(self).__name__,
            "files": self.files,
            "prompt": self.prompt,
            "answer_context": self.answer_context,
        }

    @abstractmethod
    def _questions(self, record: Record) -> Iterator[Question]:
        """The questions of one record."""

    def _records(self) -> Iterator[Record]:
        try:
            files = all_files(self.files)
        except UserError as error:
            raise UserError(f"{error}: {self.bring}") if any(map(on_hub, self.files)) else error from error
        for file in files:
            for record in read_records(file.fetch(), file.id, Reading(self.fields)):
                if isinstance(record, Undecodable):
                    raise UserError(f"{record.problem}: save the file as UTF-8")
                if isinstance(record, Record):
                    yield record


def text(record: Record, field: str) -> str:
    """A field that must hold text, without white space around it.

    Raises:
        UserError: it does not, or it holds nothing else.
    """
    value = _field(record, field)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{record.place} holds {value!r} in {field!r}, not a text: correct or remove it")
    return value.strip()


def choice(record: Record, field: str, values: Sequence[Any]) -> int:
    """Which of the possible values a field holds.

    Raises:
        UserError: none of them, as where a dataset keeps the answers of its test split to itself.
    """
    value = _field(record, field)
    for index, possible in enumerate(values):
        if type(value) is type(possible) and value == possible:
            return index
    raise UserError(
        f"{record.place} holds {value!r} in {field!r}, not one of {', '.join(map(repr, values))}: name files with "
        "answers"
    )


def _field(record: Record, field: str) -> Any:
    if field not in record.fields:
        raise UserError(
            f"{record.place} has no field {field!r}, only {', '.join(record.fields) or 'none'}: bring the "
            "dataset's own records"
        )
    return record.fields[field]
