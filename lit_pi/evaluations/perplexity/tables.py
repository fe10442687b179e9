"""Perplexities of runs as tables."""

from collections.abc import Sequence
from typing import Any

from lit_pi.evaluations.perplexity.definitions import DEFINITIONS
from lit_pi.evaluations.perplexity.paired import KIND, PairedPerplexity, paired_perplexities
from lit_pi.evaluations.records import Records, label
from lit_pi.evaluations.statistics.document_intervals import FEW_DOCUMENTS
from lit_pi.evaluations.tables import Table, interval
from lit_pi.report.runs import EXCLUDES_ZERO, Run, by_evaluation, differences

BOS = {"every": "<bos> before every window", "first": "<bos> before first windows", "none": "no <bos>"}
"""The rules, as a person reads them."""


def perplexity_tables(runs: Sequence[Run]) -> list[Table]:
    """For each evaluation the curves, the other definitions, and differences from the first run."""
    found = []
    for name, records in by_evaluation(runs, KIND).items():
        found += [_curves(name, records), _definitions(name, records), *_differences(name, list(records))]
    return found


def protocol_note(protocol: dict[str, Any]) -> str:
    """What a table of perplexities has to say about how they were measured."""
    facts = [
        f"every token counts alike; stride {protocol['stride']}",
        BOS[protocol["bos"]],
        f"{protocol['documents']:,} documents",
        f"{protocol['attention_kernel']} attention in {protocol['compute_dtype']}",
        "one forward for all context lengths"
        if protocol["one_forward_for_all_context_lengths"]
        else f"a forward for each context length, on which {protocol['position']['class']} depends",
    ]
    if (sampling := protocol["sampling"]) is not None:
        drawn = f"{sampling['num_windows']:,} of {sampling['of']:,} later windows, seed {sampling['seed']}"
        facts.append(f"{drawn}: estimated by {sampling['estimate']}")
    return "; ".join(facts)


def _lengths(records: Records) -> list[int]:
    return sorted({point["context_length"] for record in records.values() for point in record["curve"]})


def _row(first: Sequence[str], cells: dict[int, str], lengths: Sequence[int]) -> list[str]:
    return [*first, *(cells.get(length, "") for length in lengths)]


def _curves(name: str, records: Records) -> Table:
    lengths, rows = _lengths(records), []
    notes: dict[str, list[str]] = {}
    for run, record in records.items():
        cells = {
            point["context_length"]: f"{point['perplexity']:.2f}{interval(point['low'], point['high'], 2)}"
            for point in record["curve"]
        }
        rows.append(_row([label(run, record)], cells, lengths))
        notes.setdefault(protocol_note(record["protocol"]), []).append(run.name)
    few = min(record["protocol"]["documents"] for record in records.values())
    said = [f"{', '.join(names)}: {note}" if len(notes) > 1 else note for note, names in notes.items()]
    said += [f"Warning: intervals over {few} documents may be too narrow"] if few < FEW_DOCUMENTS else []
    title = f"{name}: perplexity by context length, with 95 % intervals over documents"
    return Table(title, ["run", *(f"{length:,}" for length in lengths)], rows, said)


def _definitions(name: str, records: Records) -> Table:
    lengths, rows = _lengths(records), []
    for run, record in records.items():
        for key, points in record["definitions"].items():
            digits = 2 if DEFINITIONS[key].exponential else 4
            cells = {point["context_length"]: f"{point['value']:.{digits}f}" for point in points}
            rows.append(_row([label(run, record), DEFINITIONS[key].label], cells, lengths))
        gains = {
            gain["context_length"]: f"{gain['gain']:.4f}{interval(gain['low'], gain['high'], 4)}"
            for gain in record["context_gain"]
        }
        if gains:
            rows.append(_row([label(run, record), "context gain (nats)"], gains, lengths))
    title = f"{name}: every definition of perplexity"
    gain = "context gain: by how much the loss on common tokens is lower than at the shortest context length"
    return Table(title, ["run", "definition", *(f"{length:,}" for length in lengths)], rows, [gain], numbers=2)


def _differences(name: str, runs: Sequence[Run]) -> list[Table]:
    found, refused = differences(runs, paired_perplexities)
    rows: dict[tuple[str, str], dict[int, str]] = {}
    for run, entries in found.items():
        for entry in [entry for entry in entries if entry.evaluation == name]:
            cells = rows.setdefault((run.name, DEFINITIONS[entry.definition].label), {})
            cells[entry.context_length] = _difference(entry)
    if not rows and not refused:
        return []
    lengths = sorted({length for cells in rows.values() for length in cells})
    header = ["run", "definition", *(f"{length:,}" for length in lengths)]
    title = f"{name}: loss less that of {runs[0].name} on the same tokens (nats a token, or bits per byte)"
    notes = [EXCLUDES_ZERO, *refused]
    return [Table(title, header, [_row(first, cells, lengths) for first, cells in rows.items()], notes, numbers=2)]


def _difference(entry: PairedPerplexity) -> str:
    star = "*" if entry.better else ""
    return f"{entry.difference:+.4f}{star}{interval(entry.low, entry.high, 4)}"
