"""Runs of `lit-pi` in processes that torchrun starts: all of one test's after another, so that they start once."""

import json
import subprocess
import sys
from pathlib import Path

from lit_pi.cli import LitPiCLI


def launch(runs: list[list[str]], processes: int, folder: Path, timeout: int = 240) -> None:
    """Run words of the command line in so many processes of this machine; what they print is shown if they fail."""
    (folder / "runs.json").write_text(json.dumps(runs))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*torchrun, __file__, str(folder / "runs.json")], capture_output=True, text=True, timeout=timeout, cwd=folder
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"[-20_000:]


if __name__ == "__main__":
    for words in json.loads(Path(sys.argv[1]).read_text()):
        LitPiCLI(words)
