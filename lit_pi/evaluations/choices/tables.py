"""How many questions runs answered, as tables."""

from lit_pi.evaluations.choices.paired import paired_differences
from lit_pi.evaluations.choices.scores import LABELS
from lit_pi.evaluations.evaluation import Found
from lit_pi.evaluations.pairing import SHARES, difference_table, differences, share_cells
from lit_pi.evaluations.records import Run, label
from lit_pi.evaluations.tables import Table, percent


def choice_tables(found: Found) -> list[Table]:
    """Return all tasks side by side, each as the field compares its options."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for run in _runs(found):
        for name, record in [(name, own[run]) for name, own in found.items() if run in own]:
            if not record["accuracies"]:
                rows[label(run, record), "no question was scored whole"] = {}
            for entry in record["accuracies"]:
                usual = "†" if entry["normalisation"] == record["protocol"]["normalisation"] else ""
                cells = rows.setdefault((label(run, record), LABELS[entry["normalisation"]]), {})
                cells[name] = percent(entry["accuracy"], entry["low"], entry["high"]) + usual
    header = ["run", "options compared by", *found]
    lines = [[*first, *(own.get(name, "") for name in found)] for first, own in rows.items()]
    asked = {
        name: max((entry["n"] for record in own.values() for entry in record["accuracies"]), default=0)
        for name, own in found.items()
    }
    notes = [
        "† as the field compares options of this task",
        f"questions: {', '.join(f'{name} {count:,}' for name, count in asked.items())}",
    ]
    return [Table("questions answered (%), with 95 % intervals", header, lines, notes, numbers=2)]


def choice_differences(found: Found) -> list[Table]:
    """Return what runs answer that the first one does not, on the same questions."""
    taking = _runs(found)
    pairs, refused = differences(taking, paired_differences)
    rows = [
        [run.name, entry.evaluation, LABELS[entry.normalisation], *share_cells(entry.shares)]
        for run, entries in pairs.items() for entry in entries
    ]  # fmt: skip
    title = f"questions answered here, less those of {taking[0].name} (there), on the same questions"
    return difference_table(title, ["run", "task", "options compared by", *SHARES], rows, refused, numbers=3)


def _runs(found: Found) -> list[Run]:
    return list(dict.fromkeys(run for records in found.values() for run in records))
