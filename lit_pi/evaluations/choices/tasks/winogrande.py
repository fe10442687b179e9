"""WinoGrande: whom or what a sentence speaks of."""

from collections.abc import Iterator
from typing import ClassVar

from lit_pi.data.corpora.readers import Record
from lit_pi.errors import UserError
from lit_pi.evaluations.choices.tasks.task import Question, Task, choice, text

BLANK = "_"


class WinoGrande(Task):
    """WinoGrande (Sakaguchi et al. 2019, arXiv 1907.10641): 1,267 questions of the validation split.

    Records with `sentence`, which has a blank `_`, `option1`, `option2` and `answer` ("1" or "2"), in JSON lines or
    Parquet. Partial scoring (Trinh and Le 2018, arXiv 1806.02847; Brown et al. 2020, figure G.14; Gao et al. 2021):
    each option fills the blank, and what is scored is the rest of the sentence, the same text after either.

    Args:
        files: records in this format (see `TextFiles` for patterns); by default allenai/winogrande, XL, on the hub.
    """

    prompt: ClassVar = "{before}{option}"
    normalisation: ClassVar = "none"
    fields: ClassVar = ("sentence", "option1", "option2", "answer")
    bring: ClassVar = (
        "bring WinoGrande (JSON lines or Parquet with `sentence`, `option1`, `option2`, `answer`), name it in `files`"
    )

    def __init__(
        self,
        files: str
        | list[str] = "hf://datasets/allenai/winogrande@refs/convert/parquet/winogrande_xl/validation/*.parquet",
    ) -> None:
        super().__init__(files)

    def _questions(self, record: Record) -> Iterator[Question]:
        before, blank, after = text(record, "sentence").partition(BLANK)
        if not blank or not after:
            raise UserError(f"{record.place} has no blank {BLANK!r} before the end of its `sentence`: correct it")
        filled = (self.prompt.format(before=before, option=text(record, name)) for name in ("option1", "option2"))
        yield Question(record.id, tuple(filled), (after,) * 2, choice(record, "answer", ("1", "2")))
