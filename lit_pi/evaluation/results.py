"""`results.json`: what a run directory's evaluations found, and under which protocol."""

import json
import os
from pathlib import Path
from typing import Any

from lit_pi import __version__
from lit_pi.errors import UserError

FILE = "results.json"
SCHEMA_VERSION = 1


def add_record(run: Path, record: dict[str, Any]) -> Path:
    """Add a record to a run directory's results; it replaces an earlier one of the same stage, step and evaluation.

    Args:
        run: the run directory.
        record: plain JSON with `kind`, `evaluation`, `stage` and `step`.

    Returns:
        The results file, which is whole at any instant.
    """
    path = run / FILE
    kept = [other for other in (load_records(run) if path.exists() else []) if _key(other) != _key(record)]
    run.mkdir(parents=True, exist_ok=True)
    content = {"schema_version": SCHEMA_VERSION, "lit_pi": __version__, "records": [*kept, record]}
    beside = path.with_name(f"{FILE}.new")
    with beside.open("w") as file:
        json.dump(content, file, indent=2, default=str)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    return path


def load_records(run: Path) -> list[dict[str, Any]]:
    """The records of a run directory.

    Raises:
        UserError: it has none, or they are of another version or damaged.
    """
    path = run / FILE
    if not path.is_file():
        raise UserError(f"there is no {FILE} in {run}: name the directory of a run that `lit-pi test` has finished")
    try:
        content = json.loads(path.read_text())
        version, records = content["schema_version"], content["records"]
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not a results file of lit_pi ({error!r}): remove it and test again") from error
    if version != SCHEMA_VERSION:
        raise UserError(f"{path} has schema version {version}, this lit_pi reads {SCHEMA_VERSION}: test again")
    return records


def _key(record: dict[str, Any]) -> tuple[Any, ...]:
    # A test says what the model is now; a validation during training is one of many steps.
    step = record["step"] if record["stage"] == "fit" else None
    return record["kind"], record["evaluation"], record["stage"], step
