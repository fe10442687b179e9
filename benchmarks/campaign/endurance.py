"""A long run of tiny steps: its memory, open files and disk stay as they are.

python benchmarks/campaign/endurance.py OUTPUT [STEPS]        (20,000 steps by default)
"""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import NamedTuple

from commands import fit, make_texts, start

SETTLED = 0.15
"""Share of the steps after which memory, files and disk have settled."""


class Seen(NamedTuple):
    """A process at a moment: its step, memory in MiB, open files, and MiB of its run directory."""

    step: int
    memory: float
    files: int
    disk: float


def main() -> None:
    folder, steps = Path(sys.argv[1]).absolute(), int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
    shutil.rmtree(folder, ignore_errors=True)
    make_texts(folder)
    every = ["--checkpoint.every_n_train_steps=500", "--trainer.log_every_n_steps=100"]
    process = start(fit(f"--trainer.max_steps={steps}", *every).words, folder)
    found: list[Seen] = []
    while process.poll() is None:
        time.sleep(2)
        if (seen := _look(process.pid, folder / "run")) and (not found or seen.step > found[-1].step):
            found.append(seen)
    if process.returncode or not found:
        sys.exit(f"it ended with status {process.returncode}: {process.communicate()[1][-2000:]}")
    settled = [seen for seen in found if seen.step > SETTLED * steps]
    first, last = settled[: len(settled) // 4], settled[-len(settled) // 4 :]
    print(f"{steps:,} steps, seen {len(found)} times")
    for name in ("memory", "files", "disk"):
        before, after = (sum(getattr(seen, name) for seen in part) / len(part) for part in (first, last))
        print(f"{name}: {before:.1f} at first, {after:.1f} at last ({after / before - 1:+.1%})")


def _look(pid: int, run: Path) -> Seen | None:
    try:
        step = json.loads((run / "status.json").read_text())["step"]
        process = Path(f"/proc/{pid}")
        memory = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS"))
        disk = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
        return step and Seen(step, int(memory.split()[1]) / 2**10, len(list((process / "fd").iterdir())), disk / 2**20)
    except (OSError, ValueError, KeyError, StopIteration):
        return None


if __name__ == "__main__":
    main()
