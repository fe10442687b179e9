"""What runs found, chose, wrote and decoded, as tables."""

from collections.abc import Sequence

from lit_pi.evaluations.choices import paired as paired_choices
from lit_pi.evaluations.choices.scores import LABELS
from lit_pi.evaluations.decoding import differences as decode_differences
from lit_pi.evaluations.passkey import paired as paired_passkeys
from lit_pi.evaluations.records import label
from lit_pi.evaluations.statistics.paired_shares import PairedShares
from lit_pi.evaluations.summaries import scores as summaries
from lit_pi.evaluations.tables import Table, interval
from lit_pi.report.runs import EXCLUDES_ZERO, Run, by_evaluation, differences

PAIRED = ["difference (%)", "only there", "only here", "McNemar's p"]


def passkey_tables(runs: Sequence[Run]) -> list[Table]:
    """For each evaluation accuracy and k_max by context length, and differences from the first run."""
    tables = []
    for name, records in by_evaluation(runs, paired_passkeys.KIND).items():
        rows = [
            [
                label(run, record), f"{found['context_length']:,}", f"{found['n']:,}",
                _percent(found["accuracy"], found["low"], found["high"]),
                *(f"{k:,}" for k in (found["k_max"] or {}).values()),
            ]
            for run, record in records.items() for found in record["lengths"]
        ]  # fmt: skip
        thresholds = max((list(e["k_max"] or {}) for r in records.values() for e in r["lengths"]), key=len, default=[])
        header = ["run", "context length", "prompts", "found (%)", *(f"k_max@{threshold}" for threshold in thresholds)]
        rows = [row + ["-"] * (len(header) - len(row)) for row in rows]
        tables.append(Table(f"{name}: passkeys found, with 95 % intervals", header, rows))
        pairs, refused = differences(list(records), paired_passkeys.paired_passkeys)
        rows = [
            [run.name, f"{entry.context_length:,}", *_paired(entry.shares)]
            for run, entries in pairs.items() for entry in entries if entry.evaluation == name
        ]  # fmt: skip
        title = f"{name}: passkeys found here, less those of {next(iter(records)).name} (there), on the same prompts"
        tables += _compared(title, ["run", "context length", *PAIRED], rows, refused, numbers=1)
    return tables


def choice_tables(runs: Sequence[Run]) -> list[Table]:
    """All tasks side by side, each as the field compares its options, and differences from the first run."""
    records = by_evaluation(runs, paired_choices.KIND)
    if not records:
        return []
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for run in runs:
        for name, record in [(name, own[run]) for name, own in records.items() if run in own]:
            for entry in record["accuracies"]:
                usual = "†" if entry["normalisation"] == record["protocol"]["normalisation"] else ""
                cells = rows.setdefault((label(run, record), LABELS[entry["normalisation"]]), {})
                cells[name] = _percent(entry["accuracy"], entry["low"], entry["high"]) + usual
    table = Table(
        "questions answered (%), with 95 % intervals", ["run", "options compared by", *records],
        [[*first, *(cells.get(name, "") for name in records)] for first, cells in rows.items()],
        ["† as the field compares options of this task"], numbers=2,
    )  # fmt: skip
    taking = [run for run in runs if any(run in own for own in records.values())]
    pairs, refused = differences(taking, paired_choices.paired_differences)
    compared = [
        [run.name, entry.evaluation, LABELS[entry.normalisation], *_paired(entry.shares)]
        for run, entries in pairs.items() for entry in entries
    ]  # fmt: skip
    title = f"questions answered here, less those of {taking[0].name} (there), on the same questions"
    header = ["run", "task", "options compared by", *PAIRED]
    return [table, *_compared(title, header, compared, refused, numbers=3)]


def summary_tables(runs: Sequence[Run]) -> list[Table]:
    """For each evaluation what the summaries come to."""
    tables = []
    for name, records in by_evaluation(runs, summaries.KIND).items():
        rows = []
        for run, record in records.items():
            found = {
                entry["measure"]: f"{entry['mean']:.2f}{interval(entry['low'], entry['high'], 2)}"
                for entry in record["measures"]
            }
            rows.append(
                [label(run, record), f"{record['summaries']:,}", *(found.get(key, "") for key in summaries.LABELS)]
            )
        header = ["run", "summaries", *summaries.LABELS.values()]
        tables.append(Table(f"{name}: summaries, with 95 % intervals over documents", header, rows))
    return tables


def decode_tables(runs: Sequence[Run]) -> list[Table]:
    """For each evaluation how far decoding is from a full pass."""
    tables = []
    for name, records in by_evaluation(runs, decode_differences.KIND).items():
        rows = []
        for run, record in records.items():
            sizes = (record["max_difference"], record["mean_difference"])
            verdict = "consistent" if record["consistent"] else "NOT consistent"
            found = ("not finite" if size is None else f"{size:.1e}" for size in sizes)
            rows.append([label(run, record), f"{record['tokens']:,}", *found, f"{record['tolerance']:g}", verdict])
        header = ["run", "tokens", "largest difference", "mean difference", "tolerance (nats)", "verdict"]
        tables.append(Table(f"{name}: decoding with a cache against a full pass", header, rows))
    return tables


def _percent(share: float, low: float, high: float) -> str:
    return f"{100 * share:.1f}{interval(low, high, 1, 100)}"


def _paired(shares: PairedShares) -> list[str]:
    star = "*" if shares.low > 0 or shares.high < 0 else ""
    difference = f"{100 * shares.difference:+.1f}{star}{interval(shares.low, shares.high, 1, 100)}"
    return [difference, f"{shares.only_baseline:,}", f"{shares.only_other:,}", f"{shares.p:.2g}"]


def _compared(title: str, header: list[str], rows: list[list[str]], refused: list[str], numbers: int) -> list[Table]:
    return [Table(title, header, rows, [EXCLUDES_ZERO, *refused], numbers)] if rows or refused else []
