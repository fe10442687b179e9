"""One table and one picture of several runs."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lit_pi.errors import UserError
from lit_pi.evaluation.figures import perplexity_figure
from lit_pi.evaluation.perplexity import CurvePoint
from lit_pi.evaluation.results import load_records

Curves = dict[str, list[CurvePoint]]


def report(directories: Sequence[Path], output: Path = Path("runs/report")) -> None:
    """One table and one picture of several runs: perplexity curves side by side, printed and in `report.md`.

    A run counts with its last test, or its last validation where it was never tested.

    Args:
        directories: run directories.
        output: directory to write to.

    Raises:
        UserError: a run has no results.
    """
    curves: dict[str, Curves] = defaultdict(dict)
    original_contexts: dict[str, set[int]] = defaultdict(set)
    for directory in directories:
        for name, record in _latest(directory).items():
            label = f"{directory.name}: {_label(record['protocol']['position'])}"
            curves[name][label + (" (partial)" if record["partial"] else "")] = [
                CurvePoint(**point) for point in record["curve"]
            ]
            original_contexts[name].add(record["protocol"]["rope"]["original_context"])
    output.mkdir(parents=True, exist_ok=True)
    sections, pictures = [], []
    for name, found in curves.items():
        _print(name, found)
        figure = perplexity_figure(found, min(original_contexts[name]))
        for ending in ("svg", "png"):
            figure.savefig(picture := output / f"{name}-perplexity.{ending}")
        pictures.append(picture)
        sections.append(_markdown(name, found))
    (output / "report.md").write_text("\n".join(sections))
    print("Report:", output / "report.md", *pictures)


def _latest(directory: Path) -> dict[str, dict[str, Any]]:
    records = [record for record in load_records(directory) if record["kind"] == "perplexity_curve"]
    if not records:
        raise UserError(f"the results of {directory} hold no perplexity curve: test with a Perplexity evaluation")
    # Of an evaluation's records the last one here stays: a test, else the latest step.
    ordered = sorted(records, key=lambda record: (record["stage"] == "test", record["step"]))
    return {record["evaluation"]: record for record in ordered}


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _label(position: dict[str, Any]) -> str:
    parameters = ", ".join(
        f"{key} {_number(value)}" for key, value in position.items() if key != "class" and value is not None
    )
    return f"{position['class']} ({parameters})" if parameters else position["class"]


def _rows(curves: Curves) -> list[list[str]]:
    lengths = sorted({point.context_length for curve in curves.values() for point in curve})
    cells = {
        (label, point.context_length): f"{point.perplexity:.2f}" for label, curve in curves.items() for point in curve
    }
    return [[f"{length:,}", *(cells.get((label, length), "") for label in curves)] for length in lengths]


def _print(name: str, curves: Curves) -> None:
    table = Table(title=f"{name}: perplexity by context length")
    for column in ("tokens", *curves):
        table.add_column(column.replace(": ", "\n"), justify="right")
    for row in _rows(curves):
        table.add_row(*row)
    Console().print(table)


def _markdown(name: str, curves: Curves) -> str:
    lines = [["context length", *curves], ["---:"] * (1 + len(curves)), *_rows(curves)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"# {name}: perplexity by context length\n\n{table}\n\n![Perplexity against context length]"
        f"({name}-perplexity.png)\n"
    )
