"""Which models lit_pi computes as stock transformers does: the tables in README.md and docs/families.md.

python benchmarks/model_families.py            # about a minute; prints the tables
python benchmarks/model_families.py --write    # puts them between the marks in both files

Every config of `tests/helpers/architectures.py`, with random weights, is loaded, scored, trained, packed and decoded
beside stock transformers in float32 (`tests/helpers/against_stock.py`), and counts as exact where no token's loss is
more than 1e-4 nats off and no gradient more than 1e-4 of its largest entry. Exits with 1 where one is neither exact nor
refused.
"""

import argparse
import logging
import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/helpers"))

from against_stock import Found, compare
from architectures import CASES

ROOT = Path(__file__).parents[1]


def result(name: str, found: Found) -> str:
    """What became of a config, in the words of the tables."""
    if found.outcome == "exact":
        return "exact" if CASES[name].window is None else "exact with windows"
    return found.outcome


def full_table(findings: Mapping[str, Found]) -> str:
    """A row for each family and result, in Markdown."""
    rows: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for name, found in findings.items():
        family, _, special = name.partition(", ")
        reason = found.reason.replace("|", r"\|")
        rows[family, CASES[name].family, result(name, found), reason].append(special or "as it is")
    lines = ["| family | `model_type` | result | configs |", "|---|---|---|---|"]
    for (family, kind, outcome, reason), configs in rows.items():
        why = f": {reason}" if reason else ""
        lines.append(f"| {family} | `{kind}` | {outcome}{why} | {'; '.join(configs)} |")
    return "\n".join(lines)


def short_table(findings: Mapping[str, Found]) -> str:
    """A row for each result, in Markdown: families under the best result of their configs."""
    order = ["exact with windows", "exact", "refused", "wrong", "traceback"]
    best: dict[str, str] = {}
    for name, found in findings.items():
        family = name.partition(", ")[0]
        best[family] = min(result(name, found), best.get(family, order[-1]), key=order.index)
    lines = ["| result | families |", "|---|---|"]
    for outcome in order:
        if families := [family for family, kind in best.items() if kind == outcome]:
            lines.append(f"| {outcome} | {', '.join(families)} |")
    return "\n".join(lines)


def tables(findings: Mapping[str, Found]) -> dict[str, str]:
    """The tables by the page that shows them between its marks."""
    return {"README.md": short_table(findings), "docs/families.md": full_table(findings)}


def put(text: str, table: str) -> str:
    """A page with a table between its marks in place of what was there."""
    changed, count = re.subn(
        r"(<!-- families -->\n).*?(<!-- /families -->)", lambda mark: f"{mark[1]}{table}\n{mark[2]}", text, flags=re.S
    )
    assert count == 1, "a page needs the marks <!-- families --> and <!-- /families --> once"
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into README.md and docs/families.md")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # models so small gain nothing from more
    logging.disable(logging.INFO)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    findings = {name: compare(case, device=arguments.device) for name, case in CASES.items() if case.known}
    for page, table in tables(findings).items():
        if arguments.write:
            (ROOT / page).write_text(put((ROOT / page).read_text(), table))
        else:
            print(table, end="\n\n")
    sys.exit(0 if all(found.outcome in ("exact", "refused") for found in findings.values()) else 1)


if __name__ == "__main__":
    main()
