"""Records that a stranger may have written: checked before anything is made of them."""

from pathlib import Path, PurePath
from typing import Any

from lit_pi.errors import UserError, shown

FIELDS: dict[str, type] = {
    "kind": str, "evaluation": str, "stage": str, "step": int
}  # fmt: skip
"""Fields that every record has."""


def check_records(path: Path, records: Any) -> list[dict[str, Any]]:
    """Check what every record has: its fields, files inside of the run, and figures that there can be.

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
        where = f"record {number}"
        if not isinstance(record, dict):
            raise _refusal(path, f"{where} is `{shown(record)}`")
        for field, kind in FIELDS.items():
            if not isinstance(record.get(field), kind):
                raise _refusal(path, f"{where} has no `{field}`")
        protocol = record.get("protocol", {})
        if not isinstance(protocol, dict) or not isinstance(protocol.get("position", {}), dict):
            raise _refusal(path, f"{where} does not say its position strategy")
        _check_inside(path, where, record)
    return records


def _check_inside(path: Path, where: str, value: Any, key: str = "") -> None:
    if key == "table" and isinstance(value, str) and (PurePath(value).is_absolute() or ".." in PurePath(value).parts):
        raise _refusal(path, f"{where} names the file {shown(value)}, which lies outside of the run")
    if key == "perplexity" and isinstance(value, int | float) and value < 0:
        raise _refusal(path, f"{where} has a perplexity of {value}, which no model has")
    for name, inner in value.items() if isinstance(value, dict) else ():
        _check_inside(path, where, inner, str(name))
    for inner in value if isinstance(value, list) else ():
        _check_inside(path, where, inner)


def _refusal(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is not a results file of lit_pi ({reason}): remove it and test again")
