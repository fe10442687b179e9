"""Prompts that hide a key in a long text, built of tokens: exact in length and in the key's place.

The template is Mohtashami and Jaggi's (2023, arXiv 2305.16300), as Chen et al. 2023 use it (section 3.3, figure 3).
"""

from itertools import takewhile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from lit_pi.errors import UserError

TASK = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz you "
    "about the important information there.\n"
)
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
KEY = "\nThe pass key is {key}. Remember it. {key} is the pass key.\n"
QUESTION = "\nWhat is the pass key? The pass key is"


class Prompt(NamedTuple):
    """A prompt and its answer.

    Attributes:
        tokens: `<bos>`, where the tokenizer has it, and the prompt.
        answer: tokens that follow.
        distance: tokens from the key's first token to the prompt's end, both included.
    """

    tokens: NDArray[np.int64]
    answer: NDArray[np.int64]
    distance: int


class PromptBuilder:
    """Builds prompts with a tokenizer.

    Args:
        tokenizer: any of the `tokenizers` library.
        filler: tokens of a text to hide keys in; a repeated sentence by default.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, filler: NDArray[np.unsignedinteger] | None = None) -> None:
        self.tokenizer = tokenizer
        self.task = ([] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]) + self._encode(TASK)
        self.filler = filler
        # What follows a sentence can decide how its end is written, so the sentence is taken out of the middle.
        self._sentence = np.array(self._encode(FILLER * 64), np.int64)

    def build(self, length: int, distance: int, key: str, generator: np.random.Generator) -> Prompt:
        """A prompt that has `length` tokens together with its answer.

        Args:
            length: tokens, `<bos>` and answer included.
            distance: tokens from the key to the prompt's end; the nearest that the template allows is taken.
            key: what is hidden.
            generator: chooses where in the filler's text the prompt's part begins.

        Raises:
            UserError: the template alone is longer, or the filler's text is shorter.
        """
        needle, place = self._needle(key)
        question, answer = self._question(key)
        room = length - len(self.task) - len(needle) - len(question) - len(answer)
        if room < 0:
            raise UserError(
                f"a passkey prompt of {length} tokens has no room for its template: {length - room} tokens are the "
                "least with this tokenizer; raise context_lengths"
            )
        nearest = len(needle) - place + len(question)
        behind = min(max(distance - nearest, 0), room)
        before, after = self._fill(room - behind, behind, generator)
        tokens = np.concatenate((self.task, before, needle, after, question)).astype(np.int64)
        return Prompt(tokens, np.array(answer, np.int64), nearest + behind)

    def distances(self, length: int, key: str) -> tuple[int, int]:
        """The nearest and the farthest distance of a key in prompts of so many tokens."""
        needle, place = self._needle(key)
        question, answer = self._question(key)
        nearest = len(needle) - place + len(question)
        return nearest, length - len(answer) - len(self.task) - place

    def _fill(self, before: int, after: int, generator: np.random.Generator) -> tuple[NDArray, NDArray]:
        """So many tokens of filler before the key and after it."""
        if self.filler is None:
            return np.resize(self._sentence, before), np.resize(self._sentence, after)
        if len(self.filler) < before + after:
            raise UserError(
                f"the filler has {len(self.filler):,} tokens and a prompt needs {before + after:,}: name a corpus with "
                "more text"
            )
        start = int(generator.integers(len(self.filler) - before - after + 1))
        return self.filler[start : start + before], self.filler[start + before : start + before + after]

    def _needle(self, key: str) -> tuple[list[int], int]:
        """Tokens of the sentences with the key, and the place of the key's first token among them."""
        text = KEY.format(key=key)
        ids, ends = self._encode_inside(text)
        at = text.index(key)
        return ids, next(place for place, end in enumerate(ends) if end > at)

    def _question(self, key: str) -> tuple[list[int], list[int]]:
        """Tokens of the question, and those of the answer as they are written after it."""
        whole, _ = self._encode_inside(f"{QUESTION} {key}")
        question, _ = self._encode_inside(QUESTION)
        same = len([*takewhile(lambda pair: pair[0] == pair[1], zip(whole, question, strict=False))])
        return whole[:same], whole[same:]

    def _encode_inside(self, text: str) -> tuple[list[int], list[int]]:
        """Tokens of a text that stands inside another one, and where in it each of them ends."""
        # At the start of a text, some tokenizers put a space before it.
        encoding = self.tokenizer.backend_tokenizer.encode("a" + text, add_special_tokens=False)
        if any(start == 1 for start, _ in encoding.offsets):
            inside = [
                (token, end - 1) for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True) if start
            ]
        else:
            encoding = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
            inside = [(token, end) for token, (_, end) in zip(encoding.ids, encoding.offsets, strict=True)]
        return [token for token, _ in inside], [end for _, end in inside]

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
