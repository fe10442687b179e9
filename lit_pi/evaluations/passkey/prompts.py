"""Prompts that hide a key in a long text, built of tokens: exact in length and in the key's place.

The template is Mohtashami and Jaggi's (2023, arXiv 2305.16300), as Chen et al. 2023 use it (section 3.3, figure 3):
five lines, of which the second and the fourth are filler.
"""

from itertools import takewhile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding
from transformers import PreTrainedTokenizerFast

from lit_pi.data.tokenizer import plain_backend
from lit_pi.errors import UserError

Tokens = NDArray[np.int64]

TASK = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz you "
    "about the important information there.\n"
)
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
NEEDLE = "\nThe pass key is {key}. Remember it. {key} is the pass key.\n"
QUESTION = "\nWhat is the pass key? The pass key is"
ANSWER = " {key}"

AFTER_TEXT = "green", "green.", ""
"""Texts that may stand before a piece that begins a line, the most natural first."""
AFTER_LINE = "\n", ".", ""
"""Texts that may stand before filler."""


class Prompt(NamedTuple):
    """The tokens of a prompt and its answer, by piece.

    Attributes:
        task: `<bos>`, where the tokenizer has it, and the first line.
        before: filler.
        needle: the line with the key, and the ends of the lines around it.
        after: filler.
        question: the last line.
        answer: what follows.
        key_place: place of the key's first token in `needle`.
    """

    task: Tokens
    before: Tokens
    needle: Tokens
    after: Tokens
    question: Tokens
    answer: Tokens
    key_place: int

    @property
    def tokens(self) -> Tokens:
        """`<bos>`, prompt and answer."""
        return np.concatenate(self[:6])

    @property
    def distance(self) -> int:
        """Tokens from the key's first one through the prompt's last."""
        return len(self.needle) - self.key_place + len(self.after) + len(self.question)

    @property
    def depth(self) -> float:
        """Share of the filler that stands before the key; 0 where there is no filler."""
        return len(self.before) / max(len(self.before) + len(self.after), 1)


class PromptTemplate:
    """The template in the tokens of one tokenizer.

    Args:
        tokenizer: any of the `tokenizers` library. Its settings stay as they are, and those that calls of it have left
            behind do not matter.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._backend = plain_backend(tokenizer)
        self._name = tokenizer.name_or_path
        bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        self._task = np.array(bos + self._encode(TASK).ids, np.int64)
        self._bare_question = self._inside(QUESTION, AFTER_TEXT)[0]

    def of_key(self, key: int) -> Prompt:
        """The prompt of a key without filler.

        Raises:
            UserError: the tokenizer cannot write the key.
        """
        text = NEEDLE.format(key=key)
        needle, ends = self._inside(text, AFTER_TEXT)
        digits = text.index(str(key))
        key_place = next((place for place, end in enumerate(ends) if end > digits), None)
        asked, _ = self._inside(QUESTION + ANSWER.format(key=key), AFTER_TEXT)
        # The answer may change how the question's end is written; what stays the same is the prompt.
        same = len([*takewhile(lambda pair: pair[0] == pair[1], zip(asked, self._bare_question, strict=False))])
        question, answer = asked[:same], asked[same:]
        if key_place is None or str(key) not in self._backend.decode(answer, skip_special_tokens=False).replace(
            " ", ""
        ):
            raise UserError(
                f"the tokenizer {self._name} cannot write the passkey {key} (it writes "
                f"{self._encode(str(key)).tokens}): name one that knows digits in data.tokenizer"
            )
        nothing = np.empty(0, np.int64)
        line, asks, answers = (np.array(piece, np.int64) for piece in (needle, question, answer))
        return Prompt(self._task, nothing, line, nothing, asks, answers, key_place)

    def filler(self, tokens: int) -> Tokens:
        """The repeated sentence, encoded in one piece, from its start on; at least so many tokens."""
        repeats = 1
        while True:
            found, _ = self._inside(" ".join([FILLER] * repeats), AFTER_LINE)
            if len(found) >= tokens:
                return np.array(found, np.int64)
            repeats = 1 + repeats * max(2, -(-tokens // max(len(found), 1)))

    def _inside(self, text: str, before: tuple[str, ...]) -> tuple[list[int], list[int]]:
        """Tokens of a text that stands inside another one, and where in it each of them ends (characters).

        At the start of a text some tokenizers write a space that is not there, so another text stands before it, of
        which no token may reach into this one.
        """
        for anchor in before:
            encoding = self._encode(anchor + text)
            edge = len(anchor)
            if not any(start < edge < end for start, end in encoding.offsets):
                break
        first = next((place for place, (_, end) in enumerate(encoding.offsets) if end > edge), len(encoding.ids))
        return encoding.ids[first:], [end - edge for _, end in encoding.offsets[first:]]

    def _encode(self, text: str) -> Encoding:
        return self._backend.encode(text, add_special_tokens=False)
