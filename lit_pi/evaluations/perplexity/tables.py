"""Perplexities of runs as tables."""

from collections.abc import Sequence
from typing import Any

from lit_pi.evaluations.evaluation import Found
from lit_pi.evaluations.pairing import difference_table, differences
from lit_pi.evaluations.perplexity.definitions import DEFINITIONS
from lit_pi.evaluations.perplexity.paired import PairedPerplexity, paired_perplexities
from lit_pi.evaluations.perplexity.windows import BOS
from lit_pi.evaluations.records import Records, Run, label
from lit_pi.evaluations.statistics.document_intervals import FEW_DOCUMENTS
from lit_pi.evaluations.tables import Table, interval


def perplexity_tables(found: Found) -> list[Table]:
    """Return the curves and the other definitions of each evaluation."""
    tables = []
    for name, records in found.items():
        curves = _curve(name, records) if len(records) == 1 else _curves(name, records)
        tables += [curves, _definitions(name, records)]
    return tables


def perplexity_differences(found: Found) -> list[Table]:
    """Return how much more or less than the first one runs lose on the same tokens, for each evaluation."""
    return [table for name, records in found.items() for table in _differences(name, list(records))]


def protocol_note(protocol: dict[str, Any]) -> str:
    """Say below a table of perplexities how they were measured."""
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


def _curve(name: str, records: Records) -> Table:
    """One run: a row for each context length."""
    ((run, record),) = records.items()
    sampled = record["protocol"]["sampling"] is not None and not record["partial"]
    header = ["context length", "perplexity", "95 % interval over documents"]
    header += ["95 % interval of all windows"] * sampled + ["tokens scored"]
    rows = []
    for point in record["curve"]:
        ends = [(point["low"], point["high"]), *([(point["sampling_low"], point["sampling_high"])] if sampled else [])]
        intervals = [interval(*end, 3).strip(" ()") for end in ends]
        rows.append([f"{point['context_length']:,}", f"{point['perplexity']:.3f}", *intervals, f"{point['tokens']:,}"])
    notes = [protocol_note(record["protocol"])]
    if (reason := record["bits_per_byte_left_out"]) is not None:
        notes.append(f"bits per byte are left out: {reason}")
    title = f"{name}: perplexity by context length, {label(run, record)}"
    return Table(title, header, rows, [*notes, *_few_documents(records)], numbers=0)


def _few_documents(records: Records) -> list[str]:
    few = min(record["protocol"]["documents"] for record in records.values())
    if few >= FEW_DOCUMENTS:
        return []
    return [
        f"Warning: intervals over {few} documents are too narrow where documents differ much: measure "
        f"{FEW_DOCUMENTS} or more"
    ]


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
    said = [f"{', '.join(names)}: {note}" if len(notes) > 1 else note for note, names in notes.items()]
    said += _few_documents(records)
    title = f"{name}: perplexity by context length, with 95 % intervals over documents"
    return Table(title, ["run", *(f"{length:,}" for length in lengths)], rows, said)


def _definitions(name: str, records: Records) -> Table:
    lengths, rows = _lengths(records), []
    several = len(records) > 1
    for run, record in records.items():
        who = [label(run, record)] if several else []
        for key, points in record["definitions"].items():
            digits = 2 if DEFINITIONS[key].exponential else 4
            cells = {point["context_length"]: f"{point['value']:.{digits}f}" for point in points}
            rows.append(_row([*who, DEFINITIONS[key].label], cells, lengths))
        gains = {
            gain["context_length"]: f"{gain['gain']:.4f}{interval(gain['low'], gain['high'], 4)}"
            for gain in record["context_gain"]
        }
        if gains:
            rows.append(_row([*who, "context gain (nats)"], gains, lengths))
    title = f"{name}: every definition of perplexity"
    gain = "context gain: by how much the loss on common tokens is lower than at the shortest context length"
    header = [*(["run"] * several), "definition", *(f"{length:,}" for length in lengths)]
    return Table(title, header, rows, [gain], numbers=1 + several)


def _differences(name: str, runs: Sequence[Run]) -> list[Table]:
    found, refused = differences(runs, paired_perplexities)
    rows: dict[tuple[str, str], dict[int, str]] = {}
    for run, entries in found.items():
        for entry in [entry for entry in entries if entry.evaluation == name]:
            cells = rows.setdefault((run.name, DEFINITIONS[entry.definition].label), {})
            cells[entry.context_length] = _difference(entry)
    lengths = sorted({length for cells in rows.values() for length in cells})
    header = ["run", "definition", *(f"{length:,}" for length in lengths)]
    title = f"{name}: loss less that of {runs[0].name} on the same tokens (nats a token, or bits per byte)"
    return difference_table(title, header, [_row(first, cells, lengths) for first, cells in rows.items()], refused, 2)


def _difference(entry: PairedPerplexity) -> str:
    star = "*" if entry.better else ""
    return f"{entry.difference:+.4f}{star}{interval(entry.low, entry.high, 4)}"
