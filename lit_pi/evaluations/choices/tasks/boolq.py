"""BoolQ: yes or no, given a passage."""

from collections.abc import Iterator
from typing import ClassVar

from lit_pi.data.corpora.readers import Record
from lit_pi.evaluations.choices.tasks.task import Question, Task, choice, text

OPTIONS = (" no", " yes")


class BoolQ(Task):
    """BoolQ (Clark et al. 2019, arXiv 1905.10044): 3,270 questions of the validation split.

    Records with `passage`, `question` and `answer` (true or false), in JSON lines or Parquet. A `title`, which the
    original JSON lines have and the hub's files have not, stands before the passage as in Brown et al. 2020 (figure
    G.29). Prompt of Gao et al. 2021 (lm-evaluation-harness), whom LLaMA follows (Touvron et al. 2023, section 3),
    and LLaMA's comparison with P(option | "Answer:").

    Args:
        files: records in this format (see `TextFiles` for patterns); by default google/boolq on the hub.
    """

    prompt: ClassVar = "{passage}\nQuestion: {question}?\nAnswer:"
    answer_context: ClassVar = "Answer:"
    normalisation: ClassVar = "answer_context"
    fields: ClassVar = ("passage", "question", "answer")
    bring: ClassVar = "bring BoolQ (JSON lines or Parquet with `passage`, `question` and `answer`), name it in `files`"

    def __init__(
        self, files: str | list[str] = "hf://datasets/google/boolq@refs/convert/parquet/default/validation/*.parquet"
    ) -> None:
        super().__init__(files)

    def _questions(self, record: Record) -> Iterator[Question]:
        passage = f"{text(record, 'title')} -- " if "title" in record.fields else ""
        passage += text(record, "passage")
        context = self.prompt.format(passage=passage, question=text(record, "question").removesuffix("?"))
        yield Question(record.id, (context,) * 2, OPTIONS, choice(record, "answer", (False, True)))
