"""Faults as a campaign: real processes of the installed command are killed, starved and fed damaged files.

python benchmarks/campaign OUTPUT [--quick] [--seed N] [--only KIND ...]     (make campaign, make campaign-quick)

Writes OUTPUT/faults.md, a table of what came of them, and a line for each fault in OUTPUT/faults.jsonl as it happens.
Ends with status 1 where one was silent or broke something.
"""

import argparse
import json
import platform
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import cache, partial
from itertools import cycle, islice
from pathlib import Path

import torch
from commands import asked, fresh, make_base
from faults import BROKEN, FAULTS, HARMLESS, NOTICED, SILENT, SURVIVED, Whole

COUNTS = {"kill -9": 200, "damaged file": 200, "disk full": 24, "nothing may be written": 6, "lost process": 8}
"""Faults of each kind; a twentieth of them in a quick campaign, but one of each at least."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the faults, in some ten minutes")
    parser.add_argument("--seed", type=int, default=0, help="chooses instants, files and places")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="KIND",
        help="those faults alone whose kind and name begin so: 'disk full', 'damaged file: exported model'",
    )  # fmt: skip
    arguments = parser.parse_args()
    output = arguments.output.absolute()
    shutil.rmtree(output, ignore_errors=True)
    base = output / "base"
    base.mkdir(parents=True)
    begun = time.monotonic()
    make_base(base)
    plans = list(_plans(base, output, arguments.seed, 20 if arguments.quick else 1, arguments.only))
    if not plans:
        parser.error(f"--only names no fault: there are {', '.join(FAULTS)}")
    found: Counter[tuple[str, str]] = Counter()
    with ThreadPoolExecutor(2) as pool, (output / "faults.jsonl").open("w", buffering=1) as lines:
        for kind, outcome, where in pool.map(lambda plan: plan(), plans):
            found[kind, outcome] += 1
            lines.write(json.dumps({"fault": kind, "outcome": outcome, "where": where}) + "\n")
    (output / "faults.md").write_text(table := _table(found, time.monotonic() - begun))
    print(table)
    sys.exit(any(found[kind, outcome] for kind in COUNTS for outcome in (SILENT, BROKEN)))


def _plans(base: Path, output: Path, seed: int, share: int, only: list[str]) -> Iterator[partial]:
    """Faults of the campaign, each after its command was asked once without any."""

    @cache
    def whole(kind: str, name: str) -> Whole:
        command, folder = FAULTS[kind][1][name], fresh(base, output / "whole")
        start = time.monotonic()
        done = asked(command.words, folder)
        if done.returncode:
            sys.exit(f"{name} failed without a fault: {done.stderr[-2000:]}")
        return Whole(time.monotonic() - start, command.left(folder))

    for kind, (make, commands) in FAULTS.items():
        faults = islice(cycle(commands), max(COUNTS[kind] // share, len(commands)))
        for number, name in enumerate(faults):
            if only and not any(f"{kind}: {name}".startswith(begin) for begin in only):
                continue
            folder = output / f"{kind.replace(' ', '-')}-{number}"
            fault = partial(make, name, base, whole=whole(kind, name))
            yield partial(_try, kind, fault, folder, random.Random(f"{seed} {kind} {number}"))


def _try(kind: str, fault: partial, folder: Path, chance: random.Random) -> tuple[str, str, str]:
    try:
        outcome, where = fault(folder=folder, chance=chance)
    except Exception as error:  # the campaign itself must end
        outcome, where = BROKEN, f"{type(error).__name__}: {error}"
    if outcome not in (SILENT, BROKEN):
        shutil.rmtree(folder, ignore_errors=True)  # the others are kept, to be looked at
    return kind, outcome, where


def _table(found: Counter[tuple[str, str]], seconds: float) -> str:
    outcomes = (SURVIVED, NOTICED, HARMLESS, SILENT, BROKEN)
    lines = [f"| fault | tried | {' | '.join(outcomes)} |", "| --- |" + " ---: |" * (len(outcomes) + 1)]
    for kind in COUNTS:
        counts = [found[kind, outcome] for outcome in outcomes]
        if not any(counts):
            continue
        lines.append(f"| {kind} | {sum(counts)} | {' | '.join(map(str, counts))} |")
    machine = (
        f"{platform.machine()}, {torch.get_num_threads()} cores, torch {torch.__version__}, {date.today():%d %B %Y}"
    )
    return "\n".join([*lines, "", f"{machine}; {seconds / 60:.0f} minutes.", ""])


if __name__ == "__main__":
    main()
