"""Runs compared item by item: tables of differences from the first run."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lit_pi.errors import DamagedError, UserError
from lit_pi.evaluations.parquet import read_columns
from lit_pi.evaluations.records import Records, Run
from lit_pi.evaluations.statistics.document_intervals import Figure, cluster_mean
from lit_pi.evaluations.statistics.paired_shares import PairedShares, paired_shares
from lit_pi.evaluations.statistics.settled import warnings
from lit_pi.evaluations.tables import RESTS_ON, Table, interval, rests_on

Pair = TypeVar("Pair")
EXCLUDES_ZERO = "* the 95 % interval of the difference excludes zero"
SHARES = ("difference (%)", "only there", "only here", "McNemar's p")
"""The header over what `share_cells` returns."""


def differences(
    runs: Sequence[Run], compare: Callable[[Path, Path], Sequence[Pair]]
) -> tuple[dict[Run, Sequence[Pair]], list[str]]:
    """Compare each run with the first one; return what differs, and why some cannot be compared.

    Raises:
        DamagedError: what a run has measured is gone, or not what was written.
    """
    baseline, *others = runs
    found, refused = {}, []
    for run in others:
        try:
            found[run] = compare(baseline.directory, run.directory)
        except DamagedError:
            raise
        except UserError as error:
            refused.append(f"not compared: {error}")
    return found, refused


def difference_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str], numbers: int
) -> list[Table]:
    """Return a table of differences with its notes, or none where there is nothing to say."""
    return [Table(title, header, rows, [EXCLUDES_ZERO, *notes], numbers)] if rows or notes else []


def difference_cell(difference: Figure, form: str) -> str:
    """Write out a difference: `*` stands behind one that tells, `?` where a few documents carry it.

    Args:
        difference: with its interval over documents.
        form: how numbers are formatted, such as `.4f`.
    """
    value, low, high, effective, share = difference
    mark = "*" if difference.tells else "?" if difference.excludes_zero else ""
    ends = "" if low is None or high is None else f" ({low:{form}} to {high:{form}})"
    return f"{value:+{form}}{mark}{ends}{rests_on(effective, share)}"


def difference_notes(found: Mapping[str, Figure]) -> list[str]:
    """Say below differences what they rest on, and why some have no star.

    Args:
        found: differences by where they stand.
    """
    places: dict[str, list[str]] = {}
    for where, difference in found.items():
        if difference.excludes_zero and (reason := difference.unsettled) is not None:
            places.setdefault(reason, []).append(where)
    withheld = [
        f"? no star for {where[0]}{f' and {len(where) - 1} more' if len(where) > 1 else ''}: {reason}"
        for reason, where in places.items()
    ]
    return [RESTS_ON, *withheld, *warnings(difference.effective_documents for difference in found.values())]


def share_cells(shares: PairedShares) -> list[str]:
    """Write out what two runs have right and wrong of the same things."""
    star = "*" if shares.low > 0 or shares.high < 0 else ""
    difference = f"{100 * shares.difference:+.1f}{star}{interval(shares.low, shares.high, 1, 100)}"
    return [difference, f"{shares.only_baseline:,}", f"{shares.only_other:,}", f"{shares.p:.2g}"]


def paired_items(name: str, records: Records, columns: Mapping[str, str]) -> list[Table]:
    """Compare columns of the runs' items, which have an `id`: shares where values are truth values, else means.

    Items of one `id` are compared in their order and count as one document, from which the interval follows.

    Args:
        name: the evaluation's name.
        records: its record in each run.
        columns: what to compare, with what to call it.
    """
    if not columns or len(records) < 2:
        return []

    def compare(baseline: Path, other: Path) -> list[tuple[str, int, Figure | PairedShares | None]]:
        by_directory = {run.directory: record for run, record in records.items()}
        first, second = by_directory[baseline], by_directory[other]
        if first["asked"] != second["asked"]:
            raise UserError(f"{baseline} and {other} measured {name} differently: test both with the same options")
        one, two = (_items(run, record, columns) for run, record in ((baseline, first), (other, second)))
        return [(title, *_paired(one[column], two[column])) for column, title in columns.items()]

    runs = list(records)
    found, refused = differences(runs, compare)
    cells = [(run.name, *entry) for run, entries in found.items() for entry in entries]
    rows = [[run, figure, f"{items:,}", _cell(difference)] for run, figure, items, difference in cells]
    means = {f"{run}, {figure}": each for run, figure, _, each in cells if isinstance(each, Figure)}
    notes = [*(difference_notes(means) if means else ()), *refused]
    title = f"{name}: difference from {runs[0].name} on the same items"
    return difference_table(title, ["run", "figure", "items", "difference"], rows, notes, numbers=2)


def _cell(difference: Figure | PairedShares | None) -> str:
    if isinstance(difference, PairedShares):
        return f"{share_cells(difference)[0]} %"
    return "" if difference is None else difference_cell(difference, ".4g")


def _items(run: Path, record: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, dict[tuple[Any, int], Any]]:
    """Read values by column, and by `id` and the place among the items of that `id`."""
    table = read_columns(run, record, ["id", *columns])
    ids, values = table["id"], {column: table[column] for column in columns}
    seen: dict[Any, int] = defaultdict(int)
    keys = []
    for item in ids:
        keys.append((item, seen[item]))
        seen[item] += 1
    return {column: dict(zip(keys, own, strict=True)) for column, own in values.items()}


def _paired(
    first: dict[tuple[Any, int], Any], second: dict[tuple[Any, int], Any]
) -> tuple[int, Figure | PairedShares | None]:
    """How many items both have, and what differs."""
    both = [key for key in first if key in second and first[key] is not None and second[key] is not None]
    if not both:
        return 0, None
    if all(isinstance(first[key], bool) for key in both):
        return len(both), paired_shares([(first[key], second[key]) for key in both])
    changes = [float(second[key]) - float(first[key]) for key in both]
    return len(both), cluster_mean(changes, [item for item, _ in both])
