"""`lit-pi` and `python -m lit_pi`: the entry point, light enough to answer `--version` at once."""

import os
import sys

from lit_pi import __version__
from lit_pi.command_line.output import going_on_unread
from lit_pi.runs.ranks import ending_with_parent, is_first
from lit_pi.runs.signals import SIGNALS, Stopped


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


if __name__ == "__main__":
    main()
