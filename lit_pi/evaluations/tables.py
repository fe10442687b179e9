"""Tables as text, for the terminal, in Markdown and in LaTeX; and texts of anyone as each of them, and HTML, shows."""

import html
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import rich.table
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape

from lit_pi.errors import printable


class Table(NamedTuple):
    """Cells of text.

    Attributes:
        title: above them.
        header: names of the columns; the first ones are text, those from `numbers` on are set to the right.
        rows: rows of as many cells.
        notes: below, a sentence each.
        numbers: the first column of numbers.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    numbers: int = 1

    def markdown(self) -> str:
        """As GitHub renders it."""
        aligned = [":---"] * self.numbers + ["---:"] * (len(self.header) - self.numbers)
        lines = [[in_markdown(cell) for cell in line] for line in (self.header, aligned, *self.rows)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        # `*` would begin a list.
        notes = (in_markdown(note).replace("*", "\\*", 1) for note in self.notes)
        return "\n\n".join((f"## {in_markdown(self.title)}", table, *notes)) + "\n"

    def latex(self) -> str:
        """A float with a caption, which needs the package booktabs."""
        columns = "l" * self.numbers + "r" * (len(self.header) - self.numbers)
        header, *rows = [f"  {' & '.join(map(in_latex, line))} \\\\" for line in (self.header, *self.rows)]
        notes = "".join(f" {in_latex(note)}." for note in self.notes)
        lines = [
            "\\begin{table}", "  \\centering", f"  \\caption{{{in_latex(self.title)}.{notes}}}",
            f"  \\begin{{tabular}}{{{columns}}}", "  \\toprule", header, "  \\midrule", *rows, "  \\bottomrule",
            "  \\end{tabular}", "\\end{table}",
        ]  # fmt: skip
        return "\n".join(lines) + "\n"

    def print(self, console: Console) -> None:
        """Print to a terminal; columns that its width does not hold follow in a table of their own, none is cut."""
        names, rows = self.header[: self.numbers], [row[: self.numbers] for row in self.rows]
        blocks, notes = list(self._blocks(console.width)), "\n".join(map(in_terminal, self.notes))
        for block in blocks:
            last = block is blocks[-1]
            shown = rich.table.Table(title=in_terminal(self.title), caption=notes or None if last else None)
            for name in names:
                shown.add_column(in_terminal(name), overflow="fold")
            for place in block:
                shown.add_column(in_terminal(self.header[place]), justify="right", no_wrap=True)
            for head, row in zip(rows, self.rows, strict=True):
                shown.add_row(*map(in_terminal, [*head, *(row[place] for place in block)]))
            console.print(shown)

    def _blocks(self, width: int) -> Iterator[list[int]]:
        """Group the columns of numbers into as few tables as the width allows."""
        sizes = [max(map(cell_len, cells)) + 3 for cells in zip(self.header, *self.rows, strict=True)]
        head = min(sum(sizes[: self.numbers]), width // 2) + 1
        block: list[int] = []
        for place in range(self.numbers, len(self.header)):
            if block and head + sum(sizes[taken] for taken in block) + sizes[place] > width:
                yield block
                block = []
            block.append(place)
        yield block


LATEX = {
    "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}",
    ">": "\\textgreater{}", "±": "$\\pm$", "−": "$-$", "†": "\\dag{}", **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}  # fmt: skip
"""Signs that are commands of LaTeX, or none of the fonts that it starts with."""


def in_latex(text: str) -> str:
    """Text of anyone as LaTeX prints it."""
    return "".join(LATEX.get(sign, sign) for sign in printable(text))


def in_markdown(text: str) -> str:
    """Text of anyone as Markdown shows it: no element of HTML, no cell of its own, no link and no picture."""
    plain = printable(text).replace("<", "&lt;").replace("|", "\\|")
    return re.sub(r"\[(?=[^\]]*\][(\[])", r"\\[", plain)


def in_html(text: str) -> str:
    """Text of anyone as HTML shows it, in attributes too, and in the texts of plotly, which knows no `&quot;`."""
    return html.escape(printable(text)).replace("&quot;", "&#34;")


def in_terminal(text: str) -> str:
    """Text of anyone as rich prints it: its brackets are no styles."""
    return escape(printable(text))


def percent(share: float, low: float, high: float) -> str:
    """Write a share and its interval in per cent."""
    return f"{100 * share:.1f}{interval(low, high, 1, 100)}"


RESTS_ON = "[documents in effect, largest share of the variance that one of them carries]"
"""The legend of `rests_on`."""


def rests_on(effective: float | None, largest_share: float | None) -> str:
    """Write behind an interval over documents what it rests on, if there is one."""
    return "" if effective is None or largest_share is None else f" [{effective:.1f}, {100 * largest_share:.0f} %]"


def interval(low: float | None, high: float | None, digits: int, scale: float = 1) -> str:
    """An interval behind a figure, if there is one."""
    return "" if low is None or high is None else f" ({scale * low:.{digits}f} to {scale * high:.{digits}f})"
