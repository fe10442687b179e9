"""Signals that ask a run to stop: at the end of the step where it trains, at once where it does not."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from types import FrameType
from typing import Any

NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGUSR1: "SIGUSR1", signal.SIGINT: "Ctrl-C"}
"""Signals that stop a run, and what people call them."""


class Stopped(SystemExit):
    """A run that was asked to stop, and did; the process ends with the status that shells give a signal.

    Args:
        number: the signal.
        place: where it stopped and how it goes on, for the terminal.

    Attributes:
        name: the signal's name.
    """

    def __init__(self, number: int, place: str = "") -> None:
        super().__init__(128 + number)
        self.name = NAMES[signal.Signals(number)]
        self.place = place

    def __str__(self) -> str:
        """One sentence for the terminal."""
        return f"stopped by {self.name} {self.place}".rstrip()


class Signals:
    """Which signal has asked the process to stop, and what it does then.

    The first one is kept until the run asks for it, where `waits` says that it will, and stops it at once elsewhere.
    The second one ends the process.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.waits = False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Listen, and give signals back to whom they were at the end."""
        before = {number: signal.getsignal(number) for number in NAMES}
        self.asked, self.waits = 0, False
        self.listen()
        try:
            yield
        finally:
            for number, handler in before.items() if threading.current_thread() is threading.main_thread() else ():
                signal.signal(number, handler)

    def listen(self) -> None:
        """Take signals over from whom has taken them since, as Lightning does when it begins."""
        if threading.current_thread() is threading.main_thread():
            for number in NAMES:
                signal.signal(number, self._take)

    def _take(self, number: int, frame: FrameType | None) -> None:
        name = NAMES[signal.Signals(number)]
        if self.asked:
            print(f"{name} again: stopped at once.", file=sys.stderr, flush=True)
            for child in active_children():  # which would tell how they miss this process
                child.kill()
            os._exit(128 + number)
        self.asked = number
        if not self.waits:
            raise Stopped(number)
        print(
            f"{name}: the run stops at the end of this step; once more stops it at once.", file=sys.stderr, flush=True
        )


SIGNALS = Signals()
"""Those of this process."""


def leave_to_the_parent(*_: Any) -> None:
    """Have a process that reads data go on when all of a run are asked to stop: the step under way needs its batches.

    It ends when the process that it reads for tells it to, or is gone.
    """
    if sys.platform != "linux":  # elsewhere nothing tells who sends a signal
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    threading.Thread(target=_obey, args=(os.getppid(),), daemon=True, name="obey-parent").start()


def _obey(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM, signal.SIGUSR1}).si_pid != parent:
        pass
    os._exit(128 + signal.SIGTERM)
