"""Tables as text: for the terminal, in Markdown and in LaTeX."""

from collections.abc import Sequence
from typing import NamedTuple

import rich.table


class Table(NamedTuple):
    """Cells of text.

    Attributes:
        title: above them.
        header: of the columns; the first ones are text, those from `numbers` on are set to the right.
        rows: of as many cells.
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
        lines = [[cell.replace("|", "\\|") for cell in line] for line in (self.header, aligned, *self.rows)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        # `<bos>` would be an element of HTML, and `*` begin a list.
        parts = (f"## {self.title}", table, *(note.replace("*", "\\*", 1) for note in self.notes))
        return "\n\n".join(parts).replace("<", "&lt;") + "\n"

    def latex(self) -> str:
        """A float with a caption, which needs the package booktabs."""
        columns = "l" * self.numbers + "r" * (len(self.header) - self.numbers)
        header, *rows = [f"  {' & '.join(map(escaped, line))} \\\\" for line in (self.header, *self.rows)]
        notes = "".join(f" {escaped(note)}." for note in self.notes)
        lines = [
            "\\begin{table}", "  \\centering", f"  \\caption{{{escaped(self.title)}.{notes}}}",
            f"  \\begin{{tabular}}{{{columns}}}", "  \\toprule", header, "  \\midrule", *rows, "  \\bottomrule",
            "  \\end{tabular}", "\\end{table}",
        ]  # fmt: skip
        return "\n".join(lines) + "\n"

    def rich(self) -> rich.table.Table:
        """For the terminal."""
        found = rich.table.Table(title=self.title, caption="\n".join(self.notes) or None)
        for place, name in enumerate(self.header):
            found.add_column(name, justify="left" if place < self.numbers else "right")
        for row in self.rows:
            found.add_row(*row)
        return found


LATEX = {
    "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}",
    ">": "\\textgreater{}", "±": "$\\pm$", "−": "$-$", "†": "\\dag{}", **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}  # fmt: skip
"""Signs that are commands of LaTeX, or none of the fonts that it starts with."""


def escaped(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(LATEX.get(sign, sign) for sign in text)


def interval(low: float | None, high: float | None, digits: int, scale: float = 1) -> str:
    """An interval behind a figure, if there is one."""
    return "" if low is None or high is None else f" ({scale * low:.{digits}f} to {scale * high:.{digits}f})"
