"""What it costs to start `lit-pi`: seconds of its commands, and of importing what they stand on, in turn.

python benchmarks/startup.py --output startup
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

LIT_PI = [sys.executable, "-m", "lit_pi"]
BASE = "import lightning.pytorch.cli, transformers"
COMMANDS: dict[str, list[str]] = {
    "python -c pass": [sys.executable, "-c", "pass"],
    BASE: [sys.executable, "-c", BASE],
    "lit-pi --version": [*LIT_PI, "--version"],
    "lit-pi fit --help": [*LIT_PI, "fit", "--help"],
}


def seconds(command: list[str]) -> float:
    """Of one process, from its start to its end."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7, help="after one that warms the disk cache")
    parser.add_argument("--output", type=Path, help="stem of a JSON and a Markdown file")
    arguments = parser.parse_args()
    rounds = [{name: seconds(command) for name, command in COMMANDS.items()} for _ in range(arguments.repetitions + 1)][
        1:
    ]
    lines = [
        f"Python {platform.python_version()}, {platform.machine()}, {arguments.repetitions} repetitions in turn\n",
        f"| | seconds, median (range) | `{BASE}` = 1, median (range) |",
        "|:---|---:|---:|",
    ]
    for name in COMMANDS:
        taken = [each[name] for each in rounds]
        ratios = [each[name] / each[BASE] for each in rounds]
        lines.append(
            f"| `{name}` | {statistics.median(taken):.2f} ({min(taken):.2f} to {max(taken):.2f}) "
            f"| {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) |"
        )
    print("\n".join(lines))
    if arguments.output:
        arguments.output.with_suffix(".json").write_text(json.dumps({"seconds": rounds}, indent=1))
        arguments.output.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
