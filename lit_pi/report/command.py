"""Tables and pictures of runs."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lit_pi.evaluations.figures import save
from lit_pi.evaluations.passkey import paired as passkey
from lit_pi.evaluations.passkey.figures import passkey_figures
from lit_pi.evaluations.perplexity import paired as perplexity
from lit_pi.evaluations.perplexity.figures import perplexity_figures
from lit_pi.evaluations.perplexity.tables import perplexity_tables
from lit_pi.evaluations.tables import Table
from lit_pi.report.answers import choice_tables, decode_tables, passkey_tables, summary_tables
from lit_pi.report.runs import Run, by_evaluation, runs_of

MARKDOWN, LATEX = "tables.md", "tables.tex"
"""Every table of a run, in its directory."""


def report(directories: Sequence[Path], output: Path = Path("runs/report")) -> None:
    """Tables and pictures of one run, or of several side by side, printed, and in `report.md` and `report.tex`.

    A run counts with its last test, or its last validation where it was never tested. Where there are several, they
    are compared with the first one: on the same tokens, prompts and questions, with intervals of the difference.

    Args:
        directories: run directories.
        output: directory to write to.

    Raises:
        UserError: a run has no results.
    """
    runs = runs_of(directories)
    tables, figures = _tables(runs), perplexity_figures(by_evaluation(runs, perplexity.KIND))
    figures |= passkey_figures(by_evaluation(runs, passkey.KIND))
    console = Console()
    for table in tables:
        console.print(table.rich())
    output.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        save(figure, output, name)
    pictures = "\n".join(f"![{name}]({name}.png)\n" for name in figures)
    (output / "report.md").write_text("\n".join([*(table.markdown() for table in tables), pictures]))
    included = "\n".join(
        f"\\begin{{figure}}\n  \\centering\n  \\includegraphics[width=\\linewidth]{{{name}.png}}\n\\end{{figure}}\n"
        for name in figures
    )
    needs = "% \\usepackage{booktabs,graphicx}\n"
    (output / "report.tex").write_text("\n".join([needs, *(table.latex() for table in tables), included]))
    print("Report:", output / "report.md", output / "report.tex", *(output / f"{name}.png" for name in figures))


def write_tables(run: Path) -> str:
    """Write every table of one run into its directory, as `tables.md` and `tables.tex`; the former is returned."""
    tables = _tables(runs_of([run]))
    markdown = "\n".join(table.markdown() for table in tables)
    (run / MARKDOWN).write_text(markdown)
    (run / LATEX).write_text("\n".join(["% \\usepackage{booktabs}\n", *(table.latex() for table in tables)]))
    return markdown


def _tables(runs: Sequence[Run]) -> list[Table]:
    found = (perplexity_tables, passkey_tables, choice_tables, summary_tables, decode_tables)
    return [table for tables in found for table in tables(runs)]
