"""Results of measuring a model in memory: numbers, tables and figures, which a notebook shows."""

from base64 import b64encode
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_pi.errors import UserError
from lit_pi.evaluations.evaluation import class_of
from lit_pi.evaluations.figures import draw
from lit_pi.evaluations.passkey.scores import PasskeyCell
from lit_pi.evaluations.perplexity.measures import CurvePoint
from lit_pi.evaluations.records import Records, Run
from lit_pi.evaluations.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Interval = tuple[float, float] | None


class Result:
    """Everything that an evaluation found.

    Args:
        record: one record of `results.json`.

    Attributes:
        record: the same, with every number and the whole protocol, as plain JSON.
    """

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record

    @property
    def protocol(self) -> dict[str, Any]:
        """How it was measured: context lengths, documents, strategy, dtype, attention kernel and the rest."""
        return self.record["protocol"]

    def table(self) -> Table:
        """Return the first of the evaluation's tables; its `markdown()` and `latex()` are text."""
        return class_of(self.record).tables(self._found())[0]

    def figure(self) -> "Figure":
        """Return the first of the evaluation's figures.

        Raises:
            UserError: this kind of evaluation has none.
        """
        pictures = class_of(self.record).figures(self._found())
        if not pictures:
            raise UserError(f"an evaluation of kind {self.record['kind']} has no figure: look at `record`")
        return draw(next(iter(pictures.values())))

    def _found(self) -> dict[str, Records]:
        return {self.record["evaluation"]: {Run("model", Path()): self.record}}

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
        if class_of(self.record).figures(self._found()):
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


def _interval(low: float | None, high: float | None) -> Interval:
    return None if low is None or high is None else (low, high)
