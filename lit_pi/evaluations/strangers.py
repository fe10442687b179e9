"""Records that a stranger may have written: checked before anything is made of them."""

from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from lit_pi.errors import UserError, shown


class Kind(NamedTuple):
    """The kind of a value.

    Attributes:
        name: what people call it.
        holds: whether a value is one.
    """

    name: str
    holds: Callable[[Any], bool]


class OrNone(NamedTuple):
    """A value of a shape, or null."""

    shape: Any


class ByName(NamedTuple):
    """A mapping from any names to values of a shape."""

    shape: Any


def _whole(least: int, below: int) -> Kind:
    return Kind("a whole number there can be", lambda value: type(value) is int and least <= value < below)


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


TEXT = Kind("a text", lambda value: isinstance(value, str))
NAME = Kind("a name", lambda value: isinstance(value, str) and bool(value.strip()))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
COUNT, LENGTH, PLACE = _whole(0, 2**63), _whole(1, 2**63), _whole(0, 1000)
NUMBER = Kind("a number", _is_number)
PERPLEXITY = Kind("a perplexity", lambda value: _is_number(value) and not value < 0)
FILE = Kind("a file inside of the run", lambda value: isinstance(value, str) and not _leads_out(PurePath(value)))
STAGE = Kind("fit, validate or test", lambda value: value in ("fit", "validate", "test"))
MAPPING = Kind("a mapping", lambda value: isinstance(value, dict))

INTERVAL = {"low": OrNone(NUMBER), "high": OrNone(NUMBER)}
DOCUMENTS = INTERVAL | {"effective_documents": OrNone(NUMBER), "largest_share": OrNone(NUMBER)}
UNCERTAINTY = DOCUMENTS | dict.fromkeys(
    ("sampling_low", "sampling_high", "effective_blocks", "largest_block_share"), OrNone(NUMBER)
)
SHARE = {"n": COUNT, "correct": COUNT, "accuracy": NUMBER, "low": NUMBER, "high": NUMBER}
PROTOCOL = {"position": MAPPING, "rope": {"original_context": LENGTH}, "checkpoint": OrNone(TEXT)}
TRAINING = {
    "position": MAPPING, "steps": COUNT, "tokens": COUNT, "seconds": NUMBER, "gib": NUMBER, "corpus": TEXT,
    "context_length": COUNT, "optimizer": TEXT, "learning_rate": NUMBER,
}  # fmt: skip
"""A training that a model went through."""
COMMON: dict[str, Any] = {
    "kind": NAME, "class_path": TEXT, "evaluation": NAME, "stage": STAGE, "step": COUNT, "partial": FLAG,
    "failed": TEXT, "unfinished": OrNone(TEXT), "trained_on": OrNone({"documents": OrNone(COUNT), "of": COUNT}),
    "table": OrNone(FILE), "protocol": PROTOCOL, "windows": TEXT, "history": OrNone([TRAINING]),
    "versions": ByName(TEXT),
}  # fmt: skip
"""Fields of every record that has them; those of `ALWAYS` every record has."""
ALWAYS = ("kind", "evaluation", "stage", "step")
OWN: dict[str, dict[str, Any]] = {
    "perplexity_curve": {
        "protocol": {
            "stride": OrNone(COUNT),
            "bos": TEXT,
            "documents": COUNT,
            "attention_kernel": TEXT,
            "compute_dtype": TEXT,
            "one_forward_for_all_context_lengths": FLAG,
            "reproduces": OrNone({"name": TEXT, "definition": TEXT, "source": TEXT}),
            "sampling_precision": OrNone(NUMBER),
            "sampling": OrNone({"num_windows": COUNT, "of": COUNT, "seed": COUNT, "estimate": TEXT}),
        },
        "definition": TEXT,
        "sampling_unsettled": OrNone(TEXT),
        "curve": [
            UNCERTAINTY | {"context_length": LENGTH, "perplexity": PERPLEXITY, "token_nll": NUMBER, "tokens": COUNT}
        ],
        "definitions": ByName([UNCERTAINTY | {"context_length": LENGTH, "value": NUMBER, "documents": COUNT}]),
        "context_gain": [UNCERTAINTY | {"context_length": LENGTH, "shortest": LENGTH, "gain": NUMBER}],
        "positions": [
            {
                "context_length": LENGTH,
                "buckets": [{"start": COUNT, "stop": COUNT, "token_nll": NUMBER, "tokens": COUNT}],
            }
        ],
        "bits_per_byte_left_out": OrNone(TEXT),
    },
    "passkey": {
        "protocol": {"mode": TEXT},
        "cells": [
            SHARE
            | {"context_length": LENGTH, "cell": PLACE, "nominal_distance": COUNT, "distance": NUMBER, "depth": NUMBER}
            | {"log_probability": OrNone(NUMBER), "token_accuracy": OrNone(NUMBER)}
        ],
        "lengths": [
            SHARE
            | {"context_length": LENGTH, "k_max": OrNone(ByName(COUNT))}
            | {"nearest_missed": OrNone(COUNT), "furthest_found": OrNone(COUNT)}
        ],
    },
    "multiple_choice": {"protocol": {"normalisation": TEXT}, "accuracies": [SHARE | {"normalisation": TEXT}]},
    "decode_consistency": {
        "consistent": FLAG,
        "tolerance": NUMBER,
        "tokens": COUNT,
        "max_difference": OrNone(NUMBER),
        "mean_difference": OrNone(NUMBER),
    },
    "summarization": {
        "protocol": {"documents_cut": ByName(COUNT)},
        "summaries": COUNT,
        "documents": COUNT,
        "measures": [DOCUMENTS | {"measure": TEXT, "mean": NUMBER, "seed_deviation": OrNone(NUMBER)}],
    },
}
"""Fields of the records of each kind."""


def check_records(path: Path, records: Any) -> list[dict[str, Any]]:
    """Check that what records hold is of the types that tables and pictures are made of, and that files lie in the run.

    Args:
        path: the results file.
        records: what stands in it.

    Returns:
        The records.

    Raises:
        UserError: they are something else.
    """
    if not isinstance(records, list):
        raise _refusal(path, "`records` is no list")
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise _refusal(path, f"record {number} is `{shown(record)}`")
        if missing := [field for field in ALWAYS if field not in record]:
            raise _refusal(path, f"record {number} has no `{missing[0]}`")
        own = OWN.get(str(record["kind"]), {})
        shape = COMMON | own | {"protocol": PROTOCOL | own.get("protocol", {})}
        if (wrong := next(_wrong(record, shape, ""), None)) is not None:
            raise _refusal(path, f"in record {number} {wrong}")
    return records


def _wrong(value: Any, shape: Any, place: str) -> Iterator[str]:
    """Say where a value is not of a shape; fields that a mapping lacks are missed where they are read."""
    if isinstance(shape, OrNone):
        yield from () if value is None else _wrong(value, shape.shape, place)
    elif isinstance(shape, Kind):
        if not shape.holds(value):
            yield f"`{shown(place)}` is {shown(value)}, which is not {shape.name}"
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"`{shown(place)}` is {shown(value)}, which is not a list"
            return
        for number, inner in enumerate(value):
            yield from _wrong(inner, shape[0], f"{place}.{number}")
    elif not isinstance(value, dict):
        yield f"`{shown(place)}` is {shown(value)}, which is not a mapping"
    else:
        fields = dict.fromkeys(value, shape.shape) if isinstance(shape, ByName) else shape
        for field in filter(fields.__contains__, value):
            yield from _wrong(value[field], fields[field], f"{place}.{field}".removeprefix("."))


def _leads_out(path: PurePath) -> bool:
    return path.is_absolute() or ".." in path.parts


def _refusal(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is not a results file of lit_pi ({reason}): remove it and test again")
