"""The page as a whole: one file, which needs no other and no network."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from lit_pi.evaluations.passkey.paired import KIND as PASSKEY
from lit_pi.evaluations.perplexity.paired import KIND as PERPLEXITY
from lit_pi.evaluations.tables import in_html
from lit_pi.files import beside
from lit_pi.report.analysis import Findings
from lit_pi.report.entries import Entry
from lit_pi.report.page.curves import perplexity_plot, position_plot
from lit_pi.report.page.differences import difference_plots, difference_table
from lit_pi.report.page.elements import figure, legend, section
from lit_pi.report.page.facts import facts, remarks
from lit_pi.report.page.passkeys import passkey_plots
from lit_pi.report.page.series import Shown, of_kind, shown
from lit_pi.report.page.tables import cost_table, passkey_table, perplexity_table

PAGE = "report.html"
"""Name of the page in the folder of a report."""

NOTHING = "No conclusion: no two models were compared by perplexity on the same tokens."


def write_page(entries: Sequence[Entry], findings: Findings, output: Path, warnings: Sequence[str] = ()) -> Path:
    """Write the page of a report.

    Args:
        entries: what is compared, the first arm first.
        findings: what is found of them.
        output: the folder, in which the page is called `report.html`.
        warnings: sentences that its reader is to be warned by, beside what the records themselves tell.

    Returns:
        The page, which is whole at any instant.
    """
    series = shown(entries)
    found = findings.comparisons
    first = entries[0].arm
    told = list(dict.fromkeys([*warnings, *findings.refused, *remarks(series)]))
    differences = difference_plots(series, found)
    body = [
        f"<header><h1>Comparison of {len(series):,} models</h1><dl>{facts(series)}</dl></header>"
        if len(series) > 1
        else f"<header><h1>{in_html(series[0].name)}</h1><dl>{facts(series)}</dl></header>",
        section("Conclusion", f'<p class="conclusion">{in_html(findings.sentence or NOTHING)}</p>'),
        section("Warnings", _listed(told)),
        section("Perplexity", *(perplexity_table(name, own, found, first) for name, own in _perplexity(series))),
        section(
            f"Differences from {first}",
            figure(
                differences,
                f"Loss less that of {first} after as many steps, on the same tokens, with 95 % intervals: below 0 is "
                "better. Filled points are certain differences (5 %, by Holm over all comparisons of an evaluation).",
            ),
            difference_table(first, found),
        ),
        section("Perplexity by context length", _curves(series)),
        section("Passkeys found", *(_passkeys(name, own) for name, own in of_kind(series, PASSKEY).items())),
        section("Loss by position", _positions(series)),
        section("Cost", cost_table(series)),
    ]
    with beside(output / PAGE) as partial:
        partial.write_text(_whole("\n".join(filter(None, body))), encoding="utf-8")
    return output / PAGE


def _whole(body: str) -> str:
    from plotly.offline import get_plotlyjs  # which takes long to import, and other commands need it not

    folder = files(__package__)
    style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    plotly = f"<script>{get_plotlyjs()}</script>\n<script>{script}</script>" if 'class="plot"' in body else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>Report of lit_pi</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        f"{plotly}\n</body>\n</html>\n"
    )


def _listed(sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{in_html(each)}</li>" for each in sentences)
    return f'<ul class="warnings">{items}</ul>' if items else ""


def _perplexity(series: Sequence[Shown]) -> list[tuple[str, list[Shown]]]:
    return list(of_kind(series, PERPLEXITY).items())


def _placed(series: Sequence[Shown], name: str) -> dict[int, Shown]:
    return {place: each for place, each in enumerate(series) if name in each.records}


def _legend(series: Sequence[Shown]) -> str:
    return legend({place: each for name, _ in _perplexity(series) for place, each in _placed(series, name).items()})


def _curves(series: Sequence[Shown]) -> str:
    plots = [perplexity_plot(name, _placed(series, name)) for name, _ in _perplexity(series)]
    said = "Solid: trained under its strategy; dashed: as it was before. A name above hides its line."
    return figure(plots, said, _legend(series))


def _positions(series: Sequence[Shown]) -> str:
    plots = [plot for name, _ in _perplexity(series) if (plot := position_plot(name, _placed(series, name)))]
    return figure(plots, "Mean over all documents; solid lines are of trained models.", _legend(series))


def _passkeys(name: str, series: Sequence[Shown]) -> str:
    scale = '<div class="scale" aria-hidden="true"><span>0 % found</span><i></i><span>100 %</span></div>'
    plots = passkey_plots(name, series)
    return passkey_table(name, series) + figure(plots, f"{name}: share of keys found, in per cent.", scale, small=True)
