"""Perplexities of runs as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from lit_pi.evaluations.evaluation import Found
from lit_pi.evaluations.pairing import difference_cell, difference_notes, difference_table, differences
from lit_pi.evaluations.perplexity.definitions import DEFINITIONS
from lit_pi.evaluations.perplexity.paired import paired_perplexities
from lit_pi.evaluations.perplexity.windows import BOS
from lit_pi.evaluations.records import Records, Run, label
from lit_pi.evaluations.statistics.document_intervals import Figure
from lit_pi.evaluations.statistics.settled import warnings
from lit_pi.evaluations.tables import RESTS_ON, Table, interval, rests_on


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
        _average(protocol),
        *([] if protocol["stride"] is None else [f"stride {protocol['stride']}"]),
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


def protocol_named(record: Mapping[str, Any]) -> str:
    """Return `, protocol NAME` for figures that a protocol of the literature gave, else nothing."""
    known = record["protocol"].get("reproduces")
    return "" if known is None else f", protocol {known['name']}"


def _average(protocol: dict[str, Any]) -> str:
    if (known := protocol.get("reproduces")) is None:
        return "every token counts alike"
    return f"protocol {known['name']} ({DEFINITIONS[known['definition']].label}; {known['source']})"


def _lengths(records: Records) -> list[int]:
    return sorted({point["context_length"] for record in records.values() for point in record["curve"]})


def _row(first: Sequence[str], cells: dict[int, str], lengths: Sequence[int]) -> list[str]:
    return [*first, *(cells.get(length, "") for length in lengths)]


def _curve(name: str, records: Records) -> Table:
    """One run: a row for each context length."""
    ((run, record),) = records.items()
    sampled = record["protocol"]["sampling"] is not None and not record["partial"]
    header = ["context length", DEFINITIONS[record["definition"]].label, "95 % interval over documents"]
    header += ["documents in effect", "largest share"]
    header += ["95 % interval of all windows", "blocks in effect", "largest share"] * sampled + ["tokens scored"]
    rows = []
    for point in record["curve"]:
        cells = _interval_cells(point["low"], point["high"], point["effective_documents"], point["largest_share"])
        if sampled:
            ends = point["sampling_low"], point["sampling_high"]
            cells += _interval_cells(*ends, point["effective_blocks"], point["largest_block_share"])
        rows.append([f"{point['context_length']:,}", f"{point['perplexity']:.3f}", *cells, f"{point['tokens']:,}"])
    notes = [protocol_note(record["protocol"]), "largest share: of the variance, what one document or block carries"]
    if (reason := record["bits_per_byte_left_out"]) is not None:
        notes.append(f"bits per byte are left out: {reason}")
    title = f"{name}: perplexity by context length{protocol_named(record)}, {label(run, record)}"
    return Table(title, header, rows, [*notes, *_doubts(records)], numbers=0)


def _interval_cells(low: float | None, high: float | None, effective: float | None, share: float | None) -> list[str]:
    ends = interval(low, high, 3).strip(" ()")
    return [ends, "" if effective is None else f"{effective:.1f}", "" if share is None else f"{100 * share:.0f} %"]


def _doubts(records: Records) -> list[str]:
    """Say what speaks against the intervals of curves."""
    found = warnings(point["effective_documents"] for record in records.values() for point in record["curve"])
    for run, record in records.items():
        if (reason := record["sampling_unsettled"]) is not None:
            found.append(f"{run.name} is unsettled ({reason}): what was drawn may not stand for all windows")
        asked = record["protocol"]["sampling_precision"]
        drawn = [point for point in record["curve"] if point["sampling_high"] is not None]
        reached = max((point["sampling_high"] / point["perplexity"] - 1 for point in drawn), default=0.0)
        if asked is not None and reached > asked:
            found.append(f"{run.name}: the interval of all windows is ±{reached:.2%}, where ±{asked:.2%} was asked")
    return found


def _curves(name: str, records: Records) -> Table:
    lengths, rows = _lengths(records), []
    notes: dict[str, list[str]] = {}
    for run, record in records.items():
        cells = {point["context_length"]: f"{point['perplexity']:.2f}{_behind(point, 2)}" for point in record["curve"]}
        rows.append(_row([label(run, record)], cells, lengths))
        notes.setdefault(protocol_note(record["protocol"]), []).append(run.name)
    said = [f"{', '.join(names)}: {note}" if len(notes) > 1 else note for note, names in notes.items()]
    said += [RESTS_ON, *_doubts(records)]
    protocols = "".join(dict.fromkeys(map(protocol_named, records.values())))
    title = f"{name}: perplexity by context length{protocols}, with 95 % intervals over documents"
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
        gains = {gain["context_length"]: f"{gain['gain']:.4f}{_behind(gain, 4)}" for gain in record["context_gain"]}
        if gains:
            rows.append(_row([*who, "context gain (nats)"], gains, lengths))
        sampled = {
            gain["context_length"]: interval(gain["sampling_low"], gain["sampling_high"], 4).strip(" ()")
            for gain in record["context_gain"]
        }
        if any(sampled.values()):
            rows.append(_row([*who, "context gain, interval of all windows"], sampled, lengths))
    title = f"{name}: every definition of perplexity"
    shown = [key for key in DEFINITIONS if any(key in record["definitions"] for record in records.values())]
    meanings = "; ".join(f"{DEFINITIONS[key].label}: {DEFINITIONS[key].meaning}" for key in shown)
    gain = "context gain: by how much the loss on common tokens is lower than at the shortest context length"
    header = [*(["run"] * several), "definition", *(f"{length:,}" for length in lengths)]
    return Table(title, header, rows, [meanings, gain, RESTS_ON], numbers=1 + several)


def _differences(name: str, runs: Sequence[Run]) -> list[Table]:
    found, refused = differences(runs, paired_perplexities)
    rows: dict[tuple[str, str], dict[int, str]] = {}
    places: dict[str, Figure] = {}
    for run, entries in found.items():
        for entry in [entry for entry in entries if entry.evaluation == name]:
            kind = DEFINITIONS[entry.definition].label
            cells = rows.setdefault((run.name, kind), {})
            cells[entry.context_length] = difference_cell(entry.difference, ".4f")
            places[f"{run.name}, {kind}, {entry.context_length:,}"] = entry.difference
    lengths = sorted({length for cells in rows.values() for length in cells})
    header = ["run", "definition", *(f"{length:,}" for length in lengths)]
    title = f"{name}: loss less that of {runs[0].name} on the same tokens (nats a token, or bits per byte)"
    notes = [*(difference_notes(places) if places else ()), *refused]
    return difference_table(title, header, [_row(first, cells, lengths) for first, cells in rows.items()], notes, 2)


def _behind(entry: dict[str, Any], digits: int) -> str:
    """The interval over documents behind a figure, and what it rests on."""
    ends = interval(entry["low"], entry["high"], digits)
    return f"{ends}{rests_on(entry['effective_documents'], entry['largest_share'])}"
