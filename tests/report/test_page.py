"""The page of a report as its reader gets it: `report.html`, without a network."""

import copy
import json
import re
import shutil
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from lit_pi.cli import LitPiCLI
from lit_pi.compare.cells import Cell
from lit_pi.compare.command import _report
from lit_pi.compare.planning import Measured
from lit_pi.evaluations.records import SCHEMA_VERSION, Run, latest
from lit_pi.files import write_sealed
from lit_pi.report import report
from lit_pi.report.analysis import findings
from lit_pi.report.entries import Entry, entries_of
from lit_pi.report.page import write_page
from lit_pi.report.runs import runs_of

pytestmark = pytest.mark.filterwarnings("ignore")

HOSTILE = "a<script>alert(1)</script>\"'&"
SECTIONS = [
    "Conclusion", "Perplexity", "Differences from base", "Perplexity by context length", "Passkeys found",
    "Loss by position",
]  # fmt: skip


def written(entries: Sequence[Entry], output: Path, warnings: Sequence[str] = ()) -> Path:
    return write_page(entries, findings(entries), output, warnings)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny: list[str], texts: Path) -> list[Path]:
    """Two runs with perplexity and passkeys, of two strategies."""
    folder = tmp_path_factory.mktemp("page")
    corpus = {"class_path": "TextFiles", "init_args": {"test": str(texts / "test")}}
    curve = {"corpus": corpus, "context_lengths": [32, 64, 128], "stride": 16, "batch_size": 8}
    keys = {"context_lengths": [350, 400], "mode": "grid", "depths": 2, "trials": 2}
    evaluations = {
        "books": {"class_path": "Perplexity", "init_args": curve},
        "keys": {"class_path": "PasskeyRetrieval", "init_args": keys},
    }
    words = [word for word in tiny if not word.startswith(("--data.evaluations", "--model.position"))]
    words = [
        word.replace("max_position_embeddings", "initializer_range: 0.3, max_position_embeddings") for word in words
    ]
    for name, position in (("base", "Extrapolate"), ("longer", "{class_path: Interpolate, init_args: {scale: 4}}")):
        LitPiCLI([
            "test", *words, f"--model.position={position}", f"--data.evaluations={json.dumps(evaluations)}",
            f"--trainer.default_root_dir={folder / name}",
        ])  # fmt: skip
    return [folder / "base", folder / "longer"]


@pytest.fixture(scope="module")
def page(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("report")
    report(runs, output)
    return (output / "report.html").read_text()


def plain(page: str) -> str:
    """The page without the scripts and styles that it bundles."""
    return re.sub(r"<(script|style)[^>]*>.*?</\1>", "", page, flags=re.DOTALL)


def specs(page: str) -> list[dict[str, Any]]:
    """What plotly is asked to draw."""
    return [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page)]


def copied(run: Path, folder: Path, **changes: Any) -> Path:
    """A run directory whose records have been changed."""
    shutil.copytree(run, folder)
    records = [copy.deepcopy(record) | changes for record in latest(run).values()]
    write_sealed(folder / "results.json", {"schema_version": SCHEMA_VERSION, "records": records})
    return folder


def test_a_page_has_every_section_that_has_something_to_show(page: str) -> None:
    assert [unescape(each) for each in re.findall(r"<h2>(.*?)</h2>", page)] == SECTIONS
    assert '<html lang="en">' in page and page.count("<h1>") == 1
    for said in ("Original context", "64 tokens", "float32", "torch 2", "Written"):
        assert said in plain(page)
    figures = specs(page)
    assert len(figures) == 1 + 1 + 2 + 1  # differences, curves, a map of each run, loss by position
    assert page.count('role="img" aria-label="') >= len(figures)
    for figure in figures:
        for axis in ("xaxis", "yaxis"):
            assert re.search(r"\(.+\)|perplexity|depth", figure["layout"][axis]["title"]["text"])


def test_a_browser_fetches_nothing(page: str) -> None:
    outer = re.sub(r"(<script[^>]*>).*?</script>", r"\1</script>", page, flags=re.DOTALL)
    places = re.findall(r'\b(?:src|href|srcset|data|action|poster)\s*=\s*"([^"]*)"', outer)
    assert places == ["data:,"]
    assert not re.search(r"@import|url\(|//", "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL)))


def test_numbers_are_those_of_the_results(page: str, runs: list[Path]) -> None:
    cells = re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', plain(page))
    table = {
        name: [re.sub("<.*?>|[↓↑≈]", "", cell) for cell in re.findall("<td>(.*?)</td>", row)]
        for head, row in reversed(cells) for name in ("base", "longer") if name in head
    }  # fmt: skip
    for run in runs:
        curve = latest(run)["books"]["curve"]
        assert table[run.name] == [f"{point['perplexity']:,.2f}" for point in curve]
    shown = next(spec for spec in specs(page) if spec["layout"]["yaxis"]["title"]["text"] == "perplexity")
    for run, trace in zip(runs, shown["data"], strict=True):
        curve = latest(run)["books"]["curve"]
        assert trace["y"] == [point["perplexity"] for point in curve]
        assert trace["line"]["dash"] == "dash"
        for said, point in zip(trace["hovertext"], curve, strict=True):
            assert f"95 % interval {point['low']:.3f} to {point['high']:.3f}" in said


def test_a_strategy_has_one_colour_in_every_figure(page: str, runs: list[Path], tmp_path: Path) -> None:
    (blue,) = {
        trace["line"]["color"] for spec in specs(page) for trace in spec["data"]
        if "line" in trace and "longer" in "".join(trace["hovertext"]).split("less")[0]
    }  # fmt: skip
    written(entries_of(runs_of(runs[::-1])), tmp_path)
    turned = (tmp_path / "report.html").read_text()
    assert blue in {trace["line"]["color"] for spec in specs(turned) for trace in spec["data"] if "line" in trace}
    assert re.search(f'<th scope="row"><span class="sample" style="color:{blue}.*?</span>longer', turned)


def test_texts_of_a_stranger_are_no_elements(runs: list[Path], tmp_path: Path) -> None:
    run = copied(runs[0], tmp_path / "run", failed=HOSTILE, unfinished=HOSTILE, partial=True)
    entries = [Entry(HOSTILE, 0, (Run(HOSTILE, run),)), Entry("x", 0, (Run("x", runs[1]),))]
    written(entries, tmp_path / "report", [HOSTILE])
    page = (tmp_path / "report" / "report.html").read_text()
    assert HOSTILE in unescape(plain(page))
    assert "<script>alert" not in page and HOSTILE not in page
    assert not [spec for spec in specs(page) if "<script>" in json.dumps(spec)]
    for attribute in re.findall(r'aria-label="([^"]*)"', page):
        assert "<" not in attribute


def test_what_speaks_against_figures_is_told_once(runs: list[Path], tmp_path: Path) -> None:
    run = copied(runs[0], tmp_path / "run", partial=True, unfinished="r was stopped at step 3")
    written([Entry("a", 0, (Run("a", run),)), Entry("b", 0, (Run("b", runs[1]),))], tmp_path, ["mind the gap"])
    page = plain((tmp_path / "report.html").read_text())
    warnings = re.findall("<li>(.*?)</li>", page)
    assert warnings[0] == "mind the gap" and len(set(warnings)) == len(warnings)
    for said in ("not compared: ", "cut short", "r was stopped at step 3"):
        assert any(said in each for each in warnings)
    assert "No conclusion" in page and "Differences from" not in page


def test_models_before_and_after_training_stand_side_by_side(runs: list[Path], tmp_path: Path) -> None:
    history = [{"position": {}, "steps": 7, "tokens": 896, "seconds": 2.5, "gib": 1.25}]
    tuned = [copied(run, tmp_path / f"{run.name}-{seed}", history=history) for run in runs for seed in range(2)]
    entries = [Entry(run.name, 0, (Run(run.name, run),)) for run in runs]
    for place, run in enumerate(runs):
        own = tuned[2 * place : 2 * place + 2]
        entries.append(Entry(run.name, 7, tuple(Run(each.name, each) for each in own)))
    written(entries, tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count('<th scope="col">zero-shot</th><th scope="col">7 steps</th>') == 5  # 3 lengths of text, 2 of keys
    assert re.findall(r"<h2>(.*?)</h2>", page) == [*SECTIONS, "Cost"]
    assert re.search("<td>7</td><td>896</td><td>2.5</td><td>1.25</td>", page)
    dashes = {trace["line"]["dash"] for spec in specs(page) for trace in spec["data"] if "line" in trace}
    assert dashes == {"dash", "solid"}
    panels = [unescape(each) for each in re.findall("<h3>(.*?)</h3>", page)]
    assert panels[:2] == ["books, zero-shot", "books, after 7 steps"]


def test_seeds_of_a_comparison_are_one_model_and_lost_cells_are_told(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lit_pi.report.command.save", lambda *_: [])  # pictures take long, and are tested elsewhere
    points = []
    for arm, run in zip(("base", "longer"), runs, strict=True):
        for seed in range(3):
            cell = Cell(tmp_path / "cells", f"{arm}-{seed}", "test", {})
            copied(run, cell.directory, history=[{"steps": 7, "seed": seed}])
            points.append(Measured(arm, 7, seed, cell))
    _report(points, tmp_path, ["it ended with status 1: no memory"])
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Comparison of 2 models" in page and "<dt>Seeds</dt><dd>3</dd>" in page
    assert "a cell failed: it ended with status 1: no memory" in page
    (figure,) = [spec for spec in specs(page) if "difference" in spec["layout"]["yaxis"]["title"]["text"]]
    assert len(figure["data"]) == 1 and figure["data"][0]["x"] == [32, 64, 128]


def test_twenty_runs_make_a_page_that_mail_takes(runs: list[Path], tmp_path: Path) -> None:
    entries = [Entry(f"arm {place}", 0, (Run(f"arm {place}", runs[place % 2]),)) for place in range(20)]
    written(entries, tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 8e6


def test_what_has_no_data_leaves_no_trace(runs: list[Path], tmp_path: Path) -> None:
    record = latest(runs[0])["keys"]
    shutil.copytree(runs[0], tmp_path / "run")
    write_sealed(tmp_path / "run" / "results.json", {"schema_version": SCHEMA_VERSION, "records": [record]})
    written(entries_of(runs_of([tmp_path / "run"])), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["Conclusion", "Passkeys found"]
    assert len(specs(page)) == 1


def test_what_was_found_stands_first_in_the_report_and_last_in_the_terminal(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(runs, tmp_path)
    said = findings(entries_of(runs_of(runs))).sentence
    assert said.startswith("At 128 tokens of ")
    assert (tmp_path / "report.md").read_text().startswith(said)
    assert capsys.readouterr().out.splitlines()[-2] == said
