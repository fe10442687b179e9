"""`lit-pi` and `python -m lit_pi`: the entry point, light enough to answer `--version` at once."""

import os
import sys

from lit_pi import __version__
from lit_pi.command_line.output import going_on_unread
from lit_pi.errors import chain_of
from lit_pi.runs.ranks import ending_with_parent, is_first
from lit_pi.runs.signals import SIGNALS, Stopped

NO_TEMPORARY = "No usable temporary directory"
"""Words of Python's `tempfile`, which packages ask while they are imported."""


@going_on_unread()
def main() -> None:
    """Run the command line."""
    if sys.argv[1:] == ["--version"]:
        print(f"lit-pi {__version__}")
        return
    # Before torch is there: blocks of GPU memory that grow leave fewer gaps.
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    try:
        with SIGNALS.heard(), ending_with_parent():
            from lit_pi.cli import run

            run()
    except Stopped as stop:
        if is_first():
            print(f"lit-pi: {stop}", file=sys.stderr)
            sys.exit(stop.code)
        sys.exit(0)  # a launcher would take another status for a lost rank, and kill the first one
    except Exception as error:
        found = (each.strerror for each in chain_of(error) if isinstance(each, FileNotFoundError) and each.strerror)
        if (said := next((words for words in found if NO_TEMPORARY in words), None)) is None:
            raise
        print(
            f"lit-pi: error: {said}: free space there, let files grow (ulimit -f unlimited), or name another folder in "
            "the environment variable TMPDIR",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
