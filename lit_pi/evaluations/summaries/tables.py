"""How good the summaries of runs are, as tables."""

from typing import Any

from lit_pi.evaluations.evaluation import Found
from lit_pi.evaluations.records import Records, label
from lit_pi.evaluations.statistics.settled import warnings
from lit_pi.evaluations.summaries.scores import LABELS
from lit_pi.evaluations.tables import RESTS_ON, Table, interval, rests_on


def summary_tables(found: Found) -> list[Table]:
    """Return a table for each evaluation: what the summaries come to."""
    return [_one(name, records) if len(records) == 1 else _many(name, records) for name, records in found.items()]


def _one(name: str, records: Records) -> Table:
    """One run: a row for each measure."""
    ((run, record),) = records.items()
    rows = [
        [
            LABELS[entry["measure"]], f"{entry['mean']:.2f}",
            interval(entry["low"], entry["high"], 2).strip(" ()") or "-", *_carried(entry),
            "-" if entry["seed_deviation"] is None else f"{entry['seed_deviation']:.2f}",
        ]
        for entry in record["measures"]
    ]  # fmt: skip
    title = f"{name}: {record['summaries']:,} summaries of {record['documents']:,} documents, {label(run, record)}"
    header = ["measure", "mean", "95 % interval over documents", "documents in effect", "largest share"]
    notes = ["largest share: of the variance, what one document carries", *_notes(record)]
    return Table(title, [*header, "deviation of seeds"], rows, notes)


def _carried(entry: dict[str, Any]) -> list[str]:
    effective, share = entry["effective_documents"], entry["largest_share"]
    return ["-" if effective is None else f"{effective:.1f}", "-" if share is None else f"{100 * share:.0f} %"]


def _many(name: str, records: Records) -> Table:
    """Several runs: a row for each of them."""
    rows = []
    for run, record in records.items():
        found = {
            entry["measure"]: f"{entry['mean']:.2f}{interval(entry['low'], entry['high'], 2)}"
            f"{rests_on(entry['effective_documents'], entry['largest_share'])}"
            for entry in record["measures"]
        }
        rows.append([label(run, record), f"{record['summaries']:,}", *(found.get(key, "") for key in LABELS)])
    notes = [RESTS_ON, *dict.fromkeys(note for record in records.values() for note in _notes(record))]
    title = f"{name}: summaries, with 95 % intervals over documents"
    return Table(title, ["run", "summaries", *LABELS.values()], rows, notes)


def _notes(record: dict[str, Any]) -> list[str]:
    documents = record["documents"]
    notes = [
        f"{part} cut to its limit in {number:,} of {documents:,} documents"
        for part, number in record["protocol"]["documents_cut"].items()
    ]
    return [*notes, *warnings(entry["effective_documents"] for entry in record["measures"])]
