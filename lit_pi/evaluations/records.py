"""`results.json`: what the evaluations of run directories found, and under which protocol."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from platform import python_version
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_pi import __version__
from lit_pi.data.documents.overlap import in_words
from lit_pi.errors import UserError
from lit_pi.evaluations.strangers import check_records
from lit_pi.files import file_checksum, read_sealed, write_sealed
from lit_pi.secrets import kept

FILE = "results.json"
SCHEMA_VERSION = 4
TABLE_CHECKSUM = "table_crc32"
"""In a record: the CRC-32 of the file that its `table` names."""
PACKAGES = ("transformers", "lightning", "tokenizers", "numpy")
"""Whose versions a record holds, beside those of lit_pi, Python and torch, which says its CUDA's too."""


class Run(NamedTuple):
    """A run directory.

    Attributes:
        name: a short name, which no other run of a comparison has.
        directory: where its results are.
    """

    name: str
    directory: Path


Records = dict[Run, dict[str, Any]]
"""One evaluation's record in each run that has it."""


def add_record(run: Path, record: dict[str, Any]) -> Path:
    """Add a record to a run directory's results; it replaces an earlier one of the same stage, step and evaluation.

    The versions that gave it are added, and the checksum of its table, the file in the run directory that it names.

    Args:
        run: the run directory.
        record: plain JSON with `kind`, `evaluation`, `stage` and `step`.

    Returns:
        The results file, which is whole at any instant.
    """
    path = run / FILE
    others = [other for other in _found(path) if _key(other) != _key(record)]
    versions = {"lit_pi": __version__, "python": python_version(), "torch": torch.__version__}
    versions |= {name: version(name) for name in PACKAGES}
    table = record.get("table")
    added = {TABLE_CHECKSUM: table and file_checksum(run / table), "versions": versions}
    content = {"schema_version": SCHEMA_VERSION, "records": [*others, record | added]}
    write_sealed(path, kept(_encoded(content)), default=str)
    return path


def _found(path: Path) -> list[dict[str, Any]]:
    """Records that new ones join. What was measured is not lost to an old file that is damaged, nor is that file."""
    if not path.exists():
        return []
    try:
        return load_records(path.parent)
    except UserError as error:
        names = chain([f"{FILE}.damaged"], map(f"{FILE}.damaged-{{}}".format, count(2)))
        aside = next(place for place in map(path.with_name, names) if not os.path.lexists(place))
        path.replace(aside)
        rank_zero_warn(f"{error}. It is now {aside}, and new results begin.")
        return []


def marked(record: dict[str, Any]) -> dict[str, Any]:
    """The record, which says in `failed` where it holds something that is no finite number."""
    place = next(_not_finite(record), None)
    return record if place is None else record | {"failed": f"{place} is not finite"}


def _not_finite(value: Any, place: str = "") -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield place
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _not_finite(inner, f"{place}.{key}" if place else str(key))


NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""How results name numbers that JSON does not have, in quotes."""


def _encoded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _encoded(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encoded(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    return value


def _decoded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _decoded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_decoded(inner) for inner in value]
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value


def load_records(run: Path) -> list[dict[str, Any]]:
    """The records of a run directory.

    Raises:
        UserError: it has none, or they are of another version or not what was written.
    """
    path = run / FILE
    if not path.is_file():
        raise UserError(f"there is no {FILE} in {run}: name the directory of a run that `lit-pi test` has finished")
    try:
        content = read_sealed(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a results file of this lit_pi, or a damaged one ({error}): remove it and test again"
        ) from error
    if (schema := content.get("schema_version")) != SCHEMA_VERSION:
        raise UserError(f"{path} has schema version {schema}, this lit_pi reads {SCHEMA_VERSION}: test again")
    return [marked(record) for record in check_records(path, _decoded(content.get("records")))]


def latest(run: Path, kind: str | None = None) -> dict[str, dict[str, Any]]:
    """Return the records that count, by evaluation: the last test, else the last validation.

    Args:
        run: the run directory.
        kind: the kind of records; all kinds by default.

    Raises:
        UserError: the directory has no results.
    """
    records = [record for record in load_records(run) if kind in (None, record["kind"])]
    # Of an evaluation's records the last one here stays: a test, else the latest step.
    ordered = sorted(records, key=lambda record: (record["stage"] == "test", record["step"]))
    return {record["evaluation"]: record for record in ordered}


def label(run: Run, record: dict[str, Any]) -> str:
    """Name a run and the strategy that it was measured with, and what its figures are to be taken with."""
    remarks = _trained(record) + [mark for mark in ("partial", "failed", "unfinished") if record.get(mark)]
    remarks += [words] if (words := seen(record)) else []
    named = f"{run.name}: {said(record['protocol']['position'])}"
    return f"{named} ({', '.join(remarks)})" if remarks else named


def _trained(record: Mapping[str, Any]) -> list[str]:
    """How the weights were trained last, so that a model that was tuned does not read like one that was not."""
    if not (history := record.get("history")):
        return []
    last = history[-1]
    trained, position = last.get("position"), record["protocol"]["position"]
    under = f" under {said(trained)}" if trained and trained != position else ""
    return [f"after {last['steps']:,} steps{under}"]


def seen(record: dict[str, Any]) -> str:
    """Name the measured documents that the model was trained on; empty where there are none, or nobody knows."""
    overlap = record.get("trained_on")
    return in_words(overlap) if overlap else ""


def said(position: dict[str, Any]) -> str:
    """Name a position strategy and its parameters, as its `describe` gives them."""
    parameters = ", ".join(
        f"{key} {_parameter(value)}" for key, value in position.items() if key != "class" and value is not None
    )
    if "class" not in position:  # strategies by name, as those of `ByLayer`
        return parameters
    return f"{position['class']} ({parameters})" if parameters else position["class"]


def _parameter(value: Any) -> str:
    if isinstance(value, dict):
        return said(value)
    if isinstance(value, (list, tuple)):
        return f"of {len(value)} numbers"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _key(record: dict[str, Any]) -> tuple[Any, ...]:
    # A test says what the model is now; a validation during training is one of many steps.
    step = record["step"] if record["stage"] == "fit" else None
    return record["kind"], record["evaluation"], record["stage"], step
