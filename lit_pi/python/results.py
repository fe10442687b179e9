"""What measuring a model in memory returns: numbers, a table and a figure, which a notebook shows."""

from base64 import b64encode
from html import escape
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure

from lit_pi.errors import UserError
from lit_pi.evaluations.passkey.figure import passkey_figure
from lit_pi.evaluations.passkey.paired import KIND as PASSKEY
from lit_pi.evaluations.passkey.scores import PasskeyCell
from lit_pi.evaluations.perplexity.figures import perplexity_figure
from lit_pi.evaluations.perplexity.measures import CurvePoint
from lit_pi.evaluations.perplexity.paired import KIND as PERPLEXITY
from lit_pi.evaluations.tables import Table

Interval = tuple[float, float] | None


class Result:
    """What an evaluation found.

    Args:
        record: of `results.json`.

    Attributes:
        record: the same, with every number and the whole protocol, as plain JSON.
    """

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record

    @property
    def protocol(self) -> dict[str, Any]:
        """How it was measured: context lengths, documents, strategy, dtype, attention kernel and the rest."""
        return self.record["protocol"]

    @property
    def title(self) -> str:
        """Name of the evaluation and of the strategy."""
        return f"{self.record['evaluation']}: {self.protocol['position']['class']}"

    def table(self) -> Table:
        """The numbers a person looks for first; its `markdown()` and `latex()` are text."""
        rows = [
            (name, f"{value:.6g}")
            for name, value in self.record.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and name != "step"
        ]
        return Table(self.title, ("", "value"), rows)

    def figure(self) -> Figure:
        """The same as a picture.

        Raises:
            UserError: this kind of evaluation has none.
        """
        return figure_of(self.record, self.title)

    def __repr__(self) -> str:
        """The table, with its columns aligned."""
        table = self.table()
        lines = [table.header, *table.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(table.header))]
        cells = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([table.title, *cells])

    def _repr_html_(self) -> str:
        """The table and the figure, as notebooks show them."""
        table = self.table()
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
        header = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
        picture = ""
        if self.record["kind"] in (PERPLEXITY, PASSKEY):
            png = BytesIO()
            self.figure().savefig(png, format="png")
            picture = (
                f'<img alt="{escape(table.title)}" src="data:image/png;base64,{b64encode(png.getvalue()).decode()}">'
            )
        return (
            f"<table><caption>{escape(table.title)}</caption><thead><tr>{header}</tr></thead>"
            f"<tbody>{rows}</tbody></table>{picture}"
        )


class PerplexityResult(Result):
    """Perplexity by context length.

    Attributes:
        record: what `results.json` holds: also the other definitions, bits per byte and the loss by position.
    """

    @property
    def curve(self) -> list[CurvePoint]:
        """A point for each context length, shortest first."""
        return [CurvePoint(**point) for point in self.record["curve"]]

    @property
    def perplexity(self) -> dict[int, float]:
        """By context length in tokens."""
        return {point.context_length: point.perplexity for point in self.curve}

    @property
    def intervals(self) -> dict[int, Interval]:
        """95 % intervals over documents, by context length; None where there is one document only."""
        return {point.context_length: _interval(point.low, point.high) for point in self.curve}

    def table(self) -> Table:
        """Perplexity, its interval and the tokens scored, a row for each context length."""
        rows = [
            (
                f"{point.context_length:,}",
                f"{point.perplexity:.3f}",
                "" if point.low is None or point.high is None else f"{point.low:.3f} to {point.high:.3f}",
                f"{point.tokens:,}",
            )
            for point in self.curve
        ]
        header = ("context length", "perplexity", "95 % interval over documents", "tokens scored")
        return Table(self.title, header, rows)


class PasskeyResult(Result):
    """Keys found by context length, and by distance or depth."""

    @property
    def cells(self) -> list[PasskeyCell]:
        """Accuracy at each context length and distance or depth, with 95 % intervals."""
        return [PasskeyCell(**cell) for cell in self.record["cells"]]

    @property
    def accuracy(self) -> dict[int, float]:
        """Share of the keys that were found, by context length in tokens."""
        return {entry["context_length"]: entry["accuracy"] for entry in self.record["lengths"]}

    @property
    def intervals(self) -> dict[int, Interval]:
        """95 % intervals (Wilson) of the accuracy, by context length."""
        return {entry["context_length"]: (entry["low"], entry["high"]) for entry in self.record["lengths"]}

    @property
    def k_max(self) -> dict[int, int]:
        """Largest distance in tokens up to which 20 % or more were found, by context length, where distances vary."""
        return {entry["context_length"]: entry["k_max"]["20"] for entry in self.record["lengths"] if entry["k_max"]}

    def table(self) -> Table:
        """Accuracy and its interval, a row for each context length."""
        rows = [
            (
                f"{entry['context_length']:,}",
                f"{entry['accuracy']:.1%}",
                f"{entry['low']:.1%} to {entry['high']:.1%}",
                f"{entry['n']:,}",
            )
            for entry in self.record["lengths"]
        ]
        return Table(self.title, ("context length", "keys found", "95 % interval", "prompts"), rows)


def figure_of(record: dict[str, Any], title: str) -> Figure:
    """The figure of a record.

    Raises:
        UserError: this kind of evaluation has none.
    """
    original = record["protocol"]["rope"]["original_context"]
    if record["kind"] == PERPLEXITY:
        return perplexity_figure({title: [CurvePoint(**point) for point in record["curve"]]}, original)
    if record["kind"] == PASSKEY:
        cells = [PasskeyCell(**cell) for cell in record["cells"]]
        reached = {entry["context_length"]: entry["k_max"]["20"] for entry in record["lengths"] if entry["k_max"]}
        return passkey_figure(cells, record["protocol"]["mode"], original, title, reached)
    raise UserError(f"an evaluation of kind {record['kind']} has no figure: look at `record`")


def _interval(low: float | None, high: float | None) -> Interval:
    return None if low is None or high is None else (low, high)
