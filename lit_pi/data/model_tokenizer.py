"""The tokenizer for a model: its own by default, and none of another vocabulary."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from transformers import PreTrainedTokenizerFast

from lit_pi.data.tokenizer import BYTES, load_tokenizer, tokenizer_fingerprint
from lit_pi.errors import UserError

MOST_FOR_BYTES = 1024
"""Largest vocabulary that may be one of bytes: its 258 tokens, rounded up generously."""

Known = Mapping[str, Any]
"""Record of a model's own tokenizer, as model sources give it: the `model`, the `name` that loads it, the digest of its
`vocabulary` where a run recorded it, and the model's `vocab_size`; but for the model, each is None where unknown."""


def choose_tokenizer(asked: str | None, known: Known | None) -> PreTrainedTokenizerFast:
    """Load the tokenizer that is asked for, if it belongs to the model, or the model's own.

    Args:
        asked: a name, as `load_tokenizer` takes it; None for the model's own.
        known: the record of the model's own; None for a model that was not trained yet, which takes any, `bytes` by
            default.

    Raises:
        UserError: there is no such tokenizer, it does not belong to the model, or nobody says which one does.
    """
    if known is None:
        return load_tokenizer(asked or BYTES)
    if asked is not None:
        tokenizer = load_tokenizer(asked)
        check_belongs(tokenizer, known)
        return tokenizer
    if (name := known["name"]) is not None:
        tokenizer = load_tokenizer(name)
        if known["vocabulary"] not in (None, vocabulary_digest(tokenizer)):
            raise UserError(
                f"the tokenizer {name} has another vocabulary than when {known['model']} was trained with it: name one "
                "with the vocabulary of then"
            )
        return tokenizer
    if not 0 < (known["vocab_size"] or 0) <= MOST_FOR_BYTES:
        raise UserError(
            f"there is no tokenizer in {known['model']}: name the one that it was trained with in `tokenizer`"
        )
    rank_zero_info(f"There is no tokenizer in {known['model']}: it is taken for a model that was trained on `{BYTES}`.")
    return load_tokenizer(BYTES)


def check_belongs(tokenizer: PreTrainedTokenizerFast, known: Known) -> None:
    """Check that the ids of a tokenizer are those that a model was trained on; say so where nobody knows.

    Special tokens may differ, and tokens may have been added.

    Raises:
        UserError: they are others.
    """
    name, model = tokenizer.name_or_path, known["model"]
    if known["vocabulary"] == vocabulary_digest(tokenizer) or (known["vocabulary"] is None and known["name"] == name):
        return
    own = _load_own(known)
    if own is not None:
        _compare(tokenizer, own, model)
    elif known["vocabulary"] is not None:
        raise UserError(
            f"the tokenizer {name} does not belong to {model}, which was trained with {known['name']}, another "
            "vocabulary: leave `data.tokenizer` out, or name one of that vocabulary"
        )
    elif name == BYTES and (known["vocab_size"] or 0) > MOST_FOR_BYTES:
        raise UserError(
            f"`{BYTES}` is for models that were trained on bytes, and {model} has a vocabulary of "
            f"{known['vocab_size']:,}: name its own tokenizer in `data.tokenizer`"
        )
    else:
        rank_zero_info(f"Nothing says whether {model} was trained with the tokenizer {name}: it is taken on trust.")


def say_what_is_missing(tokenizer: PreTrainedTokenizerFast) -> None:
    """Say which of `<bos>` and `<eos>` a tokenizer does not have, and what that means."""
    if tokenizer.bos_token_id is None:
        rank_zero_info(f"The tokenizer {tokenizer.name_or_path} has no <bos>: texts begin with their first token.")
    if tokenizer.eos_token_id is None:
        rank_zero_info(f"The tokenizer {tokenizer.name_or_path} has no <eos>: nothing marks where a text ends.")


def tokenizer_record(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Record of a tokenizer in a checkpoint that was trained with it, by which it is found again and recognised."""
    name = tokenizer.name_or_path
    found = name != BYTES and Path(name).exists()
    return {
        "name": str(Path(name).resolve()) if found else name,
        "vocabulary": vocabulary_digest(tokenizer),
        "fingerprint": tokenizer_fingerprint(tokenizer),
    }


def vocabulary_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """Digest of the tokens and their ids alone, 16 hexadecimal digits: how text is cut into them is left out."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()[:16]


def _load_own(known: Known) -> PreTrainedTokenizerFast | None:
    """The model's own tokenizer, if it can be loaded and is still the one that was recorded."""
    if known["name"] is None:
        return None
    try:
        own = load_tokenizer(known["name"])
    except UserError:
        return None
    return own if known["vocabulary"] in (None, vocabulary_digest(own)) else None


def _compare(tokenizer: PreTrainedTokenizerFast, own: PreTrainedTokenizerFast, model: str) -> None:
    special = tokenizer.added_tokens_decoder.keys() | own.added_tokens_decoder.keys()
    tokens = {index: token for token, index in tokenizer.get_vocab().items()}
    for token, index in sorted(own.get_vocab().items(), key=lambda item: item[1]):
        if index not in special and tokens.get(index, token) != token:
            raise UserError(
                f"the tokenizer {tokenizer.name_or_path} does not belong to {model}: its token {index} is "
                f"{tokens[index]!r}, and the model's own ({own.name_or_path}) has {token!r} there; leave "
                "`data.tokenizer` out, or name one of that vocabulary"
            )
