"""No rank outlives the others: who finds one lost says so and ends."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread

PAUSE = 0.1
"""Seconds between looks at other processes: Lightning looks every 5, and then kills without a word."""

GRACE = 10.0
"""Seconds in which a rank may end by itself after the process that started it: it may have ended well."""

NAMES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Variables of the environment that tell a process its rank, as Lightning reads them before there is a Trainer."""

ENDS_WITH_PARENT = "LIT_PI_ENDS_WITH_PARENT"
"""Variable of the environment under which the first rank too ends with the process that started it."""

Child = subprocess.Popen[bytes]

CONTINUE = "continue with the same command and --ckpt_path auto"


def is_first() -> bool:
    """Whether this process is rank 0, which alone writes what all share."""
    rank = next((os.environ[name] for name in NAMES if name in os.environ), "0")
    return rank == "0" and ("RANK" in os.environ or os.environ.get("NODE_RANK", "0") == "0")


@contextmanager
def watched(children: Callable[[], Sequence[Child]], last_words: Callable[[str], None]) -> Iterator[None]:
    """End this process, if it is the first rank, soon after another that it has started has failed.

    Args:
        children: gives the processes of the ranks that this one has started until now.
        last_words: notes why the run failed.
    """
    if is_first() and "RANK" not in os.environ:  # else another program has started the ranks, and watches them
        with _looking(partial(_watch_children, children, last_words)):
            yield
    else:
        yield


@contextmanager
def ending_with_parent() -> Iterator[None]:
    """End this process, if it is a rank beside the first or is told to, soon after the process that started it."""
    if is_first() and ENDS_WITH_PARENT not in os.environ:
        yield
    else:
        with _looking(partial(_watch_parent, os.getppid())):
            yield


@contextmanager
def _looking(look: Callable[[Event], None]) -> Iterator[None]:
    ended = Event()
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
                _say("the process that started this one ended")
                os._exit(1)
            return


def _say(reason: str) -> None:
    print(f"lit-pi: error: {reason}: {CONTINUE}", file=sys.stderr, flush=True)
