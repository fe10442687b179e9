"""`lit-pi` and `python -m lit_pi`: the entry point, light enough to answer `--version` at once."""

import os
import sys

from lit_pi import __version__


def main() -> None:
    """Run the command line."""
    if sys.argv[1:] == ["--version"]:
        print(f"lit-pi {__version__}")
        return
    # Before torch is there: blocks of GPU memory that grow leave fewer gaps.
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    try:
        from lit_pi.cli import run

        run()
    except KeyboardInterrupt:
        print("lit-pi: stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
