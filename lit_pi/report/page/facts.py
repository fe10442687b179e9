"""Facts in the header of the page, and what its reader is to be warned of."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from lit_pi.evaluations.records import seen
from lit_pi.evaluations.tables import in_html
from lit_pi.report.page.series import Shown


def facts(series: Sequence[Shown]) -> str:
    """Model, data, training, kernel and precision, versions and the date."""
    seeds = max(len(each.entry.runs) for each in series)
    found = {
        "Model": _said(series, lambda _, record: _model(record)),
        "Original context": _said(series, lambda _, record: _original(record)),
        "Measured on": "; ".join(_measured(series)),
        "Training": _said(series, lambda each, _: _budget(each)),
        "Seeds": f"{seeds:,}" if seeds > 1 else "",
        "Kernel and precision": _said(series, lambda _, record: _kernel(record)),
        "Versions": _said(series, lambda _, record: ", ".join(f"{k} {v}" for k, v in _of(record, "versions").items())),
        "Written": datetime.now(UTC).date().isoformat(),
    }
    return "".join(f"<div><dt>{term}</dt><dd>{in_html(text)}</dd></div>" for term, text in found.items() if text)


def remarks(series: Sequence[Shown]) -> list[str]:
    """Say of every measurement that was cut short, failed, or is of what training has not ended with."""
    names: dict[tuple[str, str], list[str]] = {}
    for each in series:
        for evaluation, records in each.records.items():
            for sentence in [sentence for record in records for sentence in _remarks(record)]:
                names.setdefault((evaluation, sentence), []).append(each.name)
    return [
        f"{evaluation}: {sentence} ({', '.join(dict.fromkeys(own))})" for (evaluation, sentence), own in names.items()
    ]


def _remarks(record: dict[str, Any]) -> Iterator[str]:
    if record.get("partial"):
        yield "figures are of a part of the data, as the test was cut short"
    if record.get("failed"):
        yield f"failed, as {record['failed']}"
    if record.get("unfinished"):
        yield f"the model's training has not ended ({record['unfinished']})"
    if words := seen(record):
        yield f"the model was {words} that are measured"


def _said(series: Sequence[Shown], fact: Callable[[Shown, dict[str, Any]], str]) -> str:
    """A fact once, or with the names of those of whom it is true where it is not true of all."""
    names: dict[str, list[str]] = {}
    for each in series:
        for text in dict.fromkeys(fact(each, record) for records in each.records.values() for record in records):
            if text:
                names.setdefault(text, []).append(each.name)
    if len(names) == 1:
        return next(iter(names))
    return "; ".join(f"{text} ({', '.join(dict.fromkeys(own))})" for text, own in names.items())


def _of(record: dict[str, Any], field: str) -> dict[str, Any]:
    value = record.get(field)
    return value if isinstance(value, dict) else {}


def _model(record: dict[str, Any]) -> str:
    model = _of(_of(record, "protocol"), "model")
    if "path" in model:
        return str(model["path"])
    sizes = {"num_hidden_layers": "layers", "hidden_size": "wide", "vocab_size": "tokens in the vocabulary"}
    told = [f"{model[key]:,} {word}" for key, word in sizes.items() if isinstance(model.get(key), int)]
    return f"{model.get('class', '')}{f' ({chr(44).join(told)})' if told else ''}"


def _original(record: dict[str, Any]) -> str:
    tokens = _of(_of(record, "protocol"), "rope").get("original_context")
    return "" if tokens is None else f"{tokens:,} tokens"


def _measured(series: Sequence[Shown]) -> Iterator[str]:
    for name in dict.fromkeys(name for each in series for name in each.records):
        record = next(each.records[name][0] for each in series if name in each.records)
        protocol = _of(record, "protocol")
        corpus = _of(protocol, "corpus")
        parts = [str(corpus[key]) for key in ("name", "split") if corpus.get(key)]
        if isinstance(protocol.get("documents"), int):
            parts.append(f"{protocol['documents']:,} documents")
        if protocol.get("mode"):
            parts.append(str(protocol["mode"]))
        kind = str(record["kind"]).replace("_", " ")
        yield f"{name} ({', '.join([kind, *parts])})"


def _budget(each: Shown) -> str:
    if not each.trainings:
        return ""
    last = each.trainings[0]
    parts = [f"{last[key]:,} {key}" for key in ("steps", "tokens") if key in last]
    if "corpus" in last:
        parts.append(f"of {last['corpus']}")
    if "context_length" in last:
        parts.append(f"at context length {last['context_length']:,}")
    if "optimizer" in last and "learning_rate" in last:
        parts.append(f"{last['optimizer']} at {last['learning_rate']:g}")
    return ", ".join(parts).replace(", of ", " of ")


def _kernel(record: dict[str, Any]) -> str:
    protocol = _of(record, "protocol")
    parts = [str(protocol[key]) for key in ("attention_kernel", "compute_dtype", "precision") if protocol.get(key)]
    return ", ".join(parts)
