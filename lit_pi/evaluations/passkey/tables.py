"""Which hidden keys runs found, as tables."""

from lit_pi.evaluations.evaluation import Found
from lit_pi.evaluations.pairing import SHARES, difference_table, differences, share_cells
from lit_pi.evaluations.passkey.paired import paired_passkeys
from lit_pi.evaluations.records import label
from lit_pi.evaluations.tables import Table, percent

ENDS = {"nearest_missed": "nearest missed", "furthest_found": "furthest found"}

K_MAX = (
    "k_max@20: the largest distance up to which at every distance at least 20 % of the keys are found; nearest missed "
    "and furthest found: distances where fewer, and where as many, are; all in tokens between key and question"
)


def passkey_tables(found: Found) -> list[Table]:
    """Return a table for each evaluation: accuracy and k_max by context length."""
    tables = []
    for name, records in found.items():
        rows = [
            [
                label(run, record), f"{entry['context_length']:,}", f"{entry['n']:,}",
                percent(entry["accuracy"], entry["low"], entry["high"]),
                *(f"{k:,}" for k in (entry["k_max"] or {}).values()),
                *(_distance(entry[end]) for end in ENDS if entry["k_max"]),
            ]
            for run, record in records.items() for entry in record["lengths"]
        ]  # fmt: skip
        thresholds = max((list(e["k_max"] or {}) for r in records.values() for e in r["lengths"]), key=len, default=[])
        header = ["run", "context length", "prompts", "found (%)", *(f"k_max@{threshold}" for threshold in thresholds)]
        header += [said for said in ENDS.values() if thresholds]
        rows = [row + ["-"] * (len(header) - len(row)) for row in rows]
        notes = [K_MAX] if thresholds else []
        tables.append(Table(f"{name}: passkeys found, with 95 % intervals", header, rows, notes))
    return tables


def passkey_differences(found: Found) -> list[Table]:
    """Return a table for each evaluation: what runs find that the first one does not, on the same prompts."""
    tables = []
    for name, records in found.items():
        pairs, refused = differences(list(records), paired_passkeys)
        rows = [
            [run.name, f"{entry.context_length:,}", *share_cells(entry.shares)]
            for run, entries in pairs.items() for entry in entries if entry.evaluation == name
        ]  # fmt: skip
        title = f"{name}: passkeys found here, less those of {next(iter(records)).name} (there), on the same prompts"
        tables += difference_table(title, ["run", "context length", *SHARES], rows, refused, numbers=1)
    return tables


def _distance(tokens: int | None) -> str:
    return "none" if tokens is None else f"{tokens:,}"
