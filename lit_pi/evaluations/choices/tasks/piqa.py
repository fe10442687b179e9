"""PIQA: which of two ways reaches a goal."""

from collections.abc import Iterator
from typing import ClassVar

from lit_pi.data.corpora.readers import Record
from lit_pi.evaluations.choices.tasks.task import Question, Task, choice, text


class PIQA(Task):
    """PIQA (Bisk et al. 2020, arXiv 1911.11641): 1,838 questions of the validation split.

    Records with `goal`, `sol1`, `sol2` and `label` (0 or 1), in JSON lines or Parquet; the original keeps its labels
    in a file of their own, whose lines belong into the records. Prompt and comparison by the option's characters of
    Gao et al. 2021 (lm-evaluation-harness), whom LLaMA follows (Touvron et al. 2023, section 3).

    Args:
        files: records in this format (see `TextFiles` for patterns); by default ybisk/piqa on the hub.
    """

    prompt: ClassVar = "Question: {goal}\nAnswer:"
    normalisation: ClassVar = "characters"
    fields: ClassVar = ("goal", "sol1", "sol2", "label")
    bring: ClassVar = "bring PIQA (JSON lines or Parquet with `goal`, `sol1`, `sol2`, `label`), name it in `files`"

    def __init__(
        self, files: str | list[str] = "hf://datasets/ybisk/piqa@refs/convert/parquet/plain_text/validation/*.parquet"
    ) -> None:
        super().__init__(files)

    def _questions(self, record: Record) -> Iterator[Question]:
        context = self.prompt.format(goal=text(record, "goal"))
        options = f" {text(record, 'sol1')}", f" {text(record, 'sol2')}"
        yield Question(record.id, (context,) * 2, options, choice(record, "label", (0, 1)))
