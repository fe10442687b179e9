"""Standard output that may end before a run does: its reader leaves, as `head` does, or its disk is full."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast


@contextmanager
def going_on_unread() -> Iterator[None]:
    """Let nothing fail because what is said for people has no place to go; a full disk is told on stderr."""
    for number in range(3):
        _open_if_closed(number)
    output, errors = Output(sys.stdout, sys.stderr), Output(sys.stderr)
    with redirect_stdout(cast(TextIO, output)), redirect_stderr(cast(TextIO, errors)):
        try:
            yield
        finally:
            output.flush()
            errors.flush()


class Output:
    """A stream that goes on without its reader: what is written after it has left is dropped.

    Args:
        stream: standard output or error.
        complaints: where it is told that the stream cannot be written, unless its reader has left.
    """

    def __init__(self, stream: TextIO, complaints: TextIO | None = None) -> None:
        self._stream = stream
        self._complaints = complaints

    def write(self, text: str) -> int:
        """Write, if anyone reads."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Flush, if anyone reads."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if self._complaints is not None and not isinstance(error, BrokenPipeError):
            with suppress(OSError):
                print(
                    f"lit-pi: what goes to standard output is lost from here on ({error.strerror})",
                    file=self._complaints,
                    flush=True,
                )

    def __getattr__(self, name: str) -> Any:
        """The rest is the stream's."""
        return getattr(self._stream, name)


def _open_if_closed(number: int) -> None:
    """Have a standard stream that was closed lead nowhere, or the next file that is opened would get what is said."""
    try:
        os.fstat(number)
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)
        stream = os.fdopen(number, "r" if number == 0 else "w")
        setattr(sys, ("stdin", "stdout", "stderr")[number], stream)
