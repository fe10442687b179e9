"""Which errors end a run through nobody's mistake at the keyboard, and their sentence."""

from lit_pi.errors import RunError, chain_of, sentence_of
from lit_pi.runs.ranks import CONTINUE

LOST = {
    "DataLoader worker": "a process that reads data ended, as where memory is short",
    "Connection closed by peer": "another rank ended",
    "Connection reset by peer": "another rank ended",
    "Broken pipe": "another rank ended",
}
"""How torch says that a process is gone, and how people do."""


def failure_behind(error: BaseException | None) -> str | None:
    """Why a run cannot go on through nobody's mistake: what is not finite, or a process that it lost."""
    for each in chain_of(error):
        if isinstance(each, RunError):
            return sentence_of(each)
        if isinstance(each, RuntimeError) and (lost := next((word for word in LOST if word in str(each)), None)):
            return f"{LOST[lost]}: {CONTINUE}"
    return None
