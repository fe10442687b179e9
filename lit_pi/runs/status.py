"""How far the run of a directory came, and how it ended: `status.json`, from its start to its end."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import NoneType
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_pi.errors import UserError, printable, sentence_of
from lit_pi.files import beside
from lit_pi.runs.failures import failure_behind
from lit_pi.runs.owner import is_owned
from lit_pi.runs.ranks import is_first
from lit_pi.runs.signals import Stopped
from lit_pi.secrets import kept

FILE = "status.json"

TRAINING = "fit"
"""The command whose status stays when another one runs in the same directory."""

_WRITTEN: dict[Path, dict[str, Any]] = {}
"""The status of each run directory as this process wrote it last."""


def _no_mistake(error: BaseException) -> None:
    return None


@contextmanager
def told(run: Path, command: str, mistake_of: Callable[[BaseException], str | None] = _no_mistake) -> Iterator[None]:
    """Keep `status.json` while a command runs: `running` at first, and in the end what came of it.

    Args:
        run: the run directory.
        command: the name of the command.
        mistake_of: the sentence of the mistake that led to an error, if one did.
    """
    try:
        before = read_status(run)
    except UserError as error:
        rank_zero_warn(f"{error}. A new one begins.")
        before = {}
    trained, now = _training_of(before), _now()
    begun = {
        "command": command, "state": "running", "step": None, "steps": None, "reason": None, "checkpoint": None,
        "host": socket.gethostname(), "pid": os.getpid(), "started": now, "updated": now,
    }  # fmt: skip
    if command == TRAINING:
        _write(run, begun)
    else:
        _write(run, begun | ({} if trained is None else {TRAINING: trained}))
    try:
        yield
    except BaseException as error:
        if command == TRAINING and before and read_status(run).get("step") is None:
            _write(run, before)  # training did not begin again, so that it stands where it stood
        elif isinstance(error, Stopped):
            note(run, state="interrupted", reason=error.name)
        else:
            note(run, state="failed", reason=failure_behind(error) or mistake_of(error) or sentence_of(error))
        raise
    note(run, state="finished")


def note(run: Path, **changes: Any) -> None:
    """Change some fields of the status of the command that runs; other ranks than the first change nothing.

    It stands in the file for readers alone: one that is damaged or gone meanwhile is written anew.
    """
    if is_first():
        before = _WRITTEN[run] if run in _WRITTEN else read_status(run)
        _write(run, before | changes | {"updated": _now()})


def read_status(run: Path) -> dict[str, Any]:
    """The fields of `status.json`; none where there is no such file.

    Raises:
        UserError: it is not what `told` writes.
    """
    path = run / FILE
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else {}
        _check(found)
        _check(found.get(TRAINING, {}))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged: remove it, and its run is taken for one whose end nobody knows") from error
    return found


def _check(status: object) -> None:
    if not isinstance(status, dict):
        raise TypeError(status)
    for field in ("step", "steps"):
        if type(status.get(field, 0)) not in (int, NoneType):
            raise TypeError(field)
    for field in ("command", "state", "reason", "checkpoint"):
        if not isinstance(status.get(field), str | None):
            raise TypeError(field)


def unfinished(run: Path) -> str | None:
    """Say that the training of a run directory has not ended well, and how far it came; None where it has.

    Nothing is said of directories without a status.
    """
    trained = _training_of(read_status(run))
    return None if trained is None or trained.get("state") == "finished" else printable(_ended(run, trained))


def say_if_unfinished(run: Path) -> None:
    """Warn of a run directory whose training has not ended well."""
    if said := unfinished(run):
        rank_zero_warn(f"{said}: its newest checkpoint is not the end of its training.")


def _training_of(status: dict[str, Any]) -> dict[str, Any] | None:
    """The status of the training of a directory, which another command may have run in since."""
    return status if status.get("command") == TRAINING else status.get(TRAINING)


def _ended(run: Path, status: dict[str, Any]) -> str:
    """How the run of a status ended, or that it still goes on, in words."""
    step, steps, reason = status.get("step"), status.get("steps"), status.get("reason")
    place = f" at step {step:,}" + (f" of {steps:,}" if steps else "") if isinstance(step, int) else ""
    because = f" ({reason})" if reason else ""
    if status.get("state") == "running":
        return f"{run} still runs{place}" if is_owned(run) else f"{run} was killed{place.replace('at', 'after', 1)}"
    if status.get("state") == "interrupted":
        return f"{run} was stopped{place}{because}"
    return f"{run} failed{place}{because}"


def _write(run: Path, status: dict[str, Any]) -> None:
    if not is_first():
        return
    _WRITTEN[run] = status
    with beside(run / FILE) as partial:
        partial.write_text(json.dumps(kept(status), indent=2) + "\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
