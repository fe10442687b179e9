"""No rank outlives the others: who finds one lost says so and ends."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread

from lightning.fabric.utilities.rank_zero import _get_rank

PAUSE = 0.1
"""Seconds between looks at other processes: Lightning looks every 5, and then kills without a word."""

GRACE = 10.0
"""Seconds in which a rank may end by itself after the process that started it: it may have ended well."""

Child = subprocess.Popen[bytes]

CONTINUE = "continue with the same command and --ckpt_path auto"


def is_first() -> bool:
    """Whether this process is rank 0, which alone writes what all share."""
    rank = _get_rank()  # by the environment, before there is a Trainer
    return rank in (None, 0) and ("RANK" in os.environ or os.environ.get("NODE_RANK", "0") == "0")


@contextmanager
def watched(children: Callable[[], Sequence[Child]], last_words: Callable[[str], None]) -> Iterator[None]:
    """End this process soon after a rank that it has started has failed, or after the process that started it as one.

    Args:
        children: gives the processes of the ranks that this one has started until now.
        last_words: notes why the run failed.
    """
    ended = Event()
    if not is_first():
        look = partial(_watch_parent, os.getppid())
    elif "RANK" not in os.environ:
        look = partial(_watch_children, children, last_words)
    else:  # another program has started the ranks, and watches them
        yield
        return
    Thread(target=look, args=(ended,), daemon=True, name="watch-ranks").start()
    try:
        yield
    finally:
        ended.set()


def _watch_children(children: Callable[[], Sequence[Child]], last_words: Callable[[str], None], ended: Event) -> None:
    while not ended.wait(PAUSE):
        codes = [child.poll() for child in children()]
        if lost := [rank for rank, code in enumerate(codes, start=1) if code]:
            reason = f"rank {lost[0]} ended with status {codes[lost[0] - 1]}"
            last_words(reason)
            _say(reason)
            for child in children():
                child.kill()
            os._exit(1)


def _watch_parent(parent: int, ended: Event) -> None:
    while not ended.wait(PAUSE):
        if os.getppid() != parent:
            if not ended.wait(GRACE):
                _say("the process that started this rank ended")
                os._exit(1)
            return


def _say(reason: str) -> None:
    print(f"lit-pi: error: {reason}: {CONTINUE}", file=sys.stderr, flush=True)
