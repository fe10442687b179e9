"""Long texts cut where their tokens are the same in one piece or in several."""

import json
import re
from collections.abc import Callable, Iterator

from tokenizers import Tokenizer

PLACE = re.compile(r"(?<=\w) (?=\w)")
"""A single space between two words: byte-level pre-tokenizers begin a word with it, whatever stands around them."""
NEIGHBOURHOOD = 100
"""Characters around a place in which the pre-tokenizer is asked whether it cuts there too."""

Cut = Callable[[str, int], Iterator[str]]


def whole(text: str, characters: int) -> Iterator[str]:
    """The text as it is, for tokenizers that look at all of it at once."""
    yield text


def cutter(backend: Tokenizer) -> Cut:
    """The function that cuts a text for this tokenizer: between words where it treats words alone, else not at all.

    A tokenizer treats words alone when a byte-level pre-tokenizer splits at a regular expression, nothing but Unicode
    composition (NFC) goes before it, and no added token holds letters. SentencePiece models do not: they read a
    text as one word.
    """
    state = json.loads(backend.to_str())
    pre_tokenizer = state["pre_tokenizer"] or {}
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    splits = any(step.get("type") == "Split" or step.get("use_regex") for step in steps)
    byte_level = all(
        step.get("type") in ("Split", "Digits") or (step.get("type") == "ByteLevel" and not step["add_prefix_space"])
        for step in steps
    )
    local = (state["normalizer"] or {"type": "NFC"})["type"] == "NFC"
    added = "".join(token["content"] for token in state["added_tokens"] if not token["special"])
    if not (splits and byte_level and local) or any(character.isalnum() for character in added):
        return whole

    def cut(text: str, characters: int) -> Iterator[str]:
        start = 0
        while found := PLACE.search(text, start + characters):
            place = found.start()
            around = text[place - NEIGHBOURHOOD : place + NEIGHBOURHOOD]
            words = backend.pre_tokenizer.pre_tokenize_str(around)
            if not any(begin == NEIGHBOURHOOD for _, (begin, _) in words):
                break
            yield text[start:place]
            start = place
        yield text[start:]

    return cut
