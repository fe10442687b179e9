"""`lit-pi` and `python -m lit_pi`: the entry point, light enough to answer `--version` at once."""

import os
import sys

from lit_pi import __version__
from lit_pi.errors import chain_of

NO_TEMPORARY = "No usable temporary directory"
"""Words of Python's `tempfile`, which packages ask while they are imported."""


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
