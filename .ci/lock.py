"""Write constraints.lock: the pins of constraints.txt with the hashes of their files, for every supported Python.

python .ci/lock.py        (make lock; asks the package index, installs nothing)
"""

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = [f"--platform=manylinux_2_{minor}_x86_64" for minor in (28, 27, 26, 24, 17, 12, 5)]
PLATFORMS.append("--platform=manylinux1_x86_64")  # the older name, which some wheels still have alone
HEADER = """# Written by `make lock`, for Linux on x86-64; of torch, the build for CPUs.
# pip install --require-hashes -r constraints.lock && pip install --no-deps .
"""
FROM_SOURCE = {"rouge_score"}
"""Packages without wheels."""


def main() -> None:
    pins = [line for line in Path("constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    hashes: dict[str, set[str]] = defaultdict(set)
    with tempfile.TemporaryDirectory() as folder:
        for version in PYTHONS:
            wheels = [pin for pin in pins if pin.partition("==")[0] not in FROM_SOURCE]
            options = ["--only-binary=:all:", f"--python-version={version}", f"--target={folder}", *PLATFORMS]
            _note(wheels, options, hashes)
        _note([pin for pin in pins if pin not in wheels], [], hashes)
    lines = [
        f"{pin} \\\n    " + " \\\n    ".join(f"--hash=sha256:{each}" for each in sorted(hashes[_name(pin)]))
        for pin in pins
    ]
    Path("constraints.lock").write_text(HEADER + "\n".join(lines) + "\n")


def _note(pins: list[str], options: list[str], hashes: dict[str, set[str]]) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as asked, tempfile.NamedTemporaryFile(suffix=".json") as said:
        asked.write("\n".join(pins))
        asked.flush()
        words = ["install", "--dry-run", "--quiet", "--ignore-installed", "--no-deps", f"--report={said.name}"]
        subprocess.run([sys.executable, "-m", "pip", *words, *options, "-r", asked.name], check=True)
        for item in json.loads(Path(said.name).read_text())["install"]:
            hashes[_name(item["metadata"]["name"])].add(item["download_info"]["archive_info"]["hashes"]["sha256"])


def _name(pin: str) -> str:
    return pin.partition("==")[0].replace("_", "-").replace(".", "-").lower()


if __name__ == "__main__":
    main()
