"""The notebooks run from top to bottom, and what they store is what running them shows."""

import base64
import contextlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def stored(cell: dict[str, Any]) -> Counter[str]:
    """How many figures and printed lines a cell stores."""
    shown: Counter[str] = Counter()
    for output in cell["outputs"]:
        if output["output_type"] == "stream":
            shown["lines"] += len("".join(output["text"]).splitlines())
        else:
            assert base64.b64decode(output["data"]["image/png"]).startswith(b"\x89PNG")
            shown["figures"] += 1
    return shown


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_runs_and_stores_as_many_figures_and_lines(
    notebook: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plt.switch_backend("Agg")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    figures = 0

    def show() -> None:
        nonlocal figures
        figures += len(plt.get_fignums())
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
        plt.close("all")

    monkeypatch.setattr(plt, "show", show)
    monkeypatch.chdir(tmp_path)
    with plt.rc_context():
        for number, cell in enumerate(code_cells(notebook), start=1):
            assert cell["execution_count"] == number, "stored outputs are not those of one run from top to bottom"
            figures, printed = 0, io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile("".join(cell["source"]), f"{notebook.name}, code cell {number}", "exec"), namespace)
            assert not plt.get_fignums(), "a figure is never shown"
            shown = Counter(figures=figures, lines=len(printed.getvalue().splitlines()))
            assert stored(cell) == shown, f"code cell {number} does not store what it shows"
