"""Tables and pictures of runs."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from lit_pi.errors import DamagedError, UserError, printable
from lit_pi.evaluations import Evaluation
from lit_pi.evaluations.figures import Picture, save
from lit_pi.evaluations.parquet import check_table
from lit_pi.evaluations.records import FILE as RESULTS
from lit_pi.evaluations.records import Records
from lit_pi.evaluations.tables import Table, in_markdown
from lit_pi.files import beside, file_name
from lit_pi.report.analysis import findings
from lit_pi.report.entries import Entry, entries_of
from lit_pi.report.page import write_page
from lit_pi.report.runs import by_class, runs_of
from lit_pi.runs.status import unfinished

MARKDOWN, LATEX = "tables.md", "tables.tex"
"""Every table of a run, in its directory."""


def report(directories: Sequence[Path], output: Path = Path("runs/report")) -> None:
    """Tables and pictures of one run, or of several side by side, printed, and in `report.md` and `report.tex`.

    `report.html` shows them as one page, which a browser opens without a network.

    A run counts with its last test, or its last validation where it was never tested. Where there are several, they
    are compared with the first one: on the same tokens, prompts and questions, with intervals of the difference.

    Args:
        directories: run directories.
        output: directory to write to.

    Raises:
        UserError: a run has no results.
    """
    runs = runs_of(directories)
    warnings = [said for directory in directories if (said := unfinished(directory))]
    for said in warnings:
        print(f"Warning: {said}.")
    write_report(entries_of(runs), output, warnings)


def write_report(entries: Sequence[Entry], output: Path, warnings: Sequence[str] = ()) -> None:
    """Print tables of all runs of entries, and write the report.

    Args:
        entries: what is compared, the first arm first.
        output: directory to write to.
        warnings: sentences that the reader of the page is to be warned by.

    Raises:
        UserError: results are not what their evaluations write.
    """
    found = by_class([run for entry in entries for run in entry.runs])
    tables: list[Table] = []
    figures: dict[str, Picture] = {}
    for owner, records in found.items():
        with _telling(owner, records):
            tables += [*owner.tables(records), *owner.differences(records)]
            figures |= {file_name(name): figure for name, figure in owner.figures(records).items()}
    _warn_of_tables(itertools.chain.from_iterable(evaluations.values() for evaluations in found.values()))
    console = Console()
    for table in tables:
        table.print(console)
    output.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        save(figure, output, name)
    found_of_all = findings(entries)
    said = f"{in_markdown(found_of_all.sentence)}\n" if found_of_all.sentence else ""
    pictures = "\n".join(f"![{name}]({name}.png)\n" for name in figures)
    _write(output / "report.md", "\n".join([said, *(table.markdown() for table in tables), pictures]))
    included = "\n".join(
        f"\\begin{{figure}}\n  \\centering\n  \\includegraphics[width=\\linewidth]{{{name}.png}}\n\\end{{figure}}\n"
        for name in figures
    )
    needs = "% \\usepackage{booktabs,graphicx}\n"
    _write(output / "report.tex", "\n".join([needs, *(table.latex() for table in tables), included]))
    write_page(entries, found_of_all, output, warnings)
    written = ("report.html", "report.md", "report.tex", *(f"{name}.png" for name in figures))
    if found_of_all.sentence:
        print(printable(found_of_all.sentence))
    print("Report:", *(printable(str(output / name)) for name in written))


def _warn_of_tables(evaluations: Iterable[Records]) -> None:
    """Warn of tables that are not what the results were made of; of one run alone nothing is made of them."""
    for run, record in itertools.chain.from_iterable(records.items() for records in evaluations):
        try:
            check_table(run.directory, record)
        except DamagedError as error:
            print(f"Warning: {printable(str(error))}; what stands in {RESULTS} is reported.")


def write_tables(run: Path) -> str:
    """Write every table of one run into its directory, as `tables.md` and `tables.tex`; the former is returned."""
    tables: list[Table] = []
    for owner, records in by_class(runs_of([run])).items():
        with _telling(owner, records):
            tables += owner.tables(records)
    markdown = "\n".join(table.markdown() for table in tables)
    _write(run / MARKDOWN, markdown)
    _write(run / LATEX, "\n".join(["% \\usepackage{booktabs}\n", *(table.latex() for table in tables)]))
    return markdown


@contextmanager
def _telling(owner: type[Evaluation], records: Mapping[str, Records]) -> Iterator[None]:
    """Say whose records lack what their class makes tables and pictures of: anyone may have written them."""
    try:
        yield
    except UserError:
        raise
    except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError) as error:
        if not owner.__module__.startswith("lit_pi."):
            raise  # a mistake in a class of one's own is found by its traceback
        runs = sorted({str(run.directory) for each in records.values() for run in each})
        raise UserError(
            f"results of {', '.join(records)} in {', '.join(runs)} are not what {owner.__name__} writes "
            f"({type(error).__name__}: {error}): test again"
        ) from error


def _write(path: Path, text: str) -> None:
    with beside(path) as partial:
        partial.write_text(text)
