"""What pictures of passkeys say: the cells of each mode, of one run and of several."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_pi.evaluations.figures import LinePanel, MapPanel, Mark, Point, draw
from lit_pi.evaluations.passkey.figures import passkey_figure, passkey_figures, passkey_lines, passkey_maps
from lit_pi.evaluations.passkey.paired import PairedPasskeys
from lit_pi.evaluations.passkey.scores import PasskeyCell
from lit_pi.evaluations.records import Run
from lit_pi.evaluations.statistics.paired_shares import paired_shares


def cell(length: int, number: int, distance: int, correct: int, depth: float = 0.5) -> PasskeyCell:
    low, high = max(0, correct - 2) / 10, min(10, correct + 3) / 10
    return PasskeyCell(length, number, distance, distance, depth, 10, correct, correct / 10, low, high, None, None)


def columns(correct: list[list[int]]) -> dict[int, list[PasskeyCell]]:
    """A grid of context lengths 256 and 512, and of depths from 0 to 1."""
    return {
        length: [cell(length, row, length - row, n, row / (len(column) - 1)) for row, n in enumerate(column)]
        for length, column in zip((256, 512), correct, strict=True)
    }


def test_distances_are_sorted_and_k_max_is_pointed_at_in_the_colour_of_its_line() -> None:
    cells = [cell(512, 1, 500, 1), cell(512, 0, 100, 9), cell(256, 0, 250, 0)]
    (panel,) = passkey_figure(cells, "paper", 128, "keys", {512: 100, 256: 0}).panels
    assert isinstance(panel, LinePanel) and panel.percent and not panel.log_x and panel.x_from == 0
    shorter, longer = panel.lines
    assert (shorter.label, longer.label) == ("256 tokens, k_max@20 0", "512 tokens, k_max@20 100")
    assert (longer.x, longer.y) == ([100, 500], [0.9, 0.1])
    assert (longer.low, longer.high) == ([0.7, 0], [1, 0.4])
    # A key that is not even found at the least distance is pointed at nowhere.
    assert panel.points == [Point(100, 0.2, "k_max@20", longer.label)]
    assert panel.marks == [Mark(128, "original context, 128"), Mark(0.2, "20% found", axis="y")]
    axes = draw(passkey_figure(cells, "paper", 128, "keys", {512: 100})).axes[0]
    line, triangle = (next(part for part in axes.lines if list(part.get_xdata()) == x) for x in ([100, 500], [100]))
    assert triangle.get_color() == line.get_color() and triangle.get_marker() == "v"


def test_drawn_distances_give_bars_over_context_lengths() -> None:
    cells = [cell(512, 0, 300, 4), cell(256, 0, 100, 9)]
    (panel,) = passkey_figure(cells, "random", 128, "keys", {}).panels
    assert isinstance(panel, LinePanel) and panel.percent and panel.log_x
    (line,) = panel.lines
    assert (line.x, line.y, line.low, line.high, line.bars) == ([256, 512], [0.9, 0.4], [0.7, 0.2], [1, 0.7], True)
    assert panel.marks == [Mark(128, "original context, 128")]


@pytest.mark.parametrize(("original", "at"), [(64, -0.5), (256, 0.5), (300, 0.5), (512, 1.5)])
def test_a_grid_of_several_lengths_is_a_map_with_the_original_context_between_columns(original: int, at: float) -> None:
    by_length = columns([[10, 2, 0], [9, 0, 5]])
    cells = [entry for own in by_length.values() for entry in own if (entry.context_length, entry.cell) != (512, 1)]
    (panel,) = passkey_figure(cells, "grid", original, "keys", {}).panels
    assert isinstance(panel, MapPanel) and panel.percent and (panel.low, panel.high) == (0, 1)
    assert panel.values == [[1, 0.9], [0.2, None], [0, 0.5]]
    assert (panel.rows, panel.columns) == (["0%", "50%", "100%"], ["256", "512"])
    assert panel.marks == [Mark(at, f"original context, {original}")]
    (only,) = passkey_figure(by_length[256], "grid", original, "keys", {}).panels
    assert isinstance(only, LinePanel) and only.lines[0].y == [0, 0.2, 1]


def test_maps_show_each_run_and_what_it_differs_by() -> None:
    runs = {"a": columns([[10, 2, 0], [9, 0, 5]]), "b": columns([[10, 4, 1], [3, 0, 5]])}
    picture = passkey_maps(runs, 256, "keys")
    maps = [panel for panel in picture.panels if isinstance(panel, MapPanel)]
    assert picture.columns == 2 and picture.panels[1] is None and len(picture.panels) == 4
    expected = [[[1, 0.9], [0.2, 0], [0, 0.5]], [[1, 0.3], [0.4, 0], [0.1, 0.5]], [[0, -0.6], [0.2, 0], [0.1, 0]]]
    assert [panel.title for panel in maps] == ["a", "b", "less the first run's"]
    shown = [axes.images[0].get_array() for axes in draw(picture).axes if axes.images]
    for panel, image, values in zip(maps, shown, expected, strict=True):
        np.testing.assert_allclose(panel.values, values, atol=1e-12)
        np.testing.assert_allclose(image, values, atol=1e-12)
    assert [(panel.low, panel.high) for panel in maps] == [(0, 1), (0, 1), (-1, 1)]
    assert [panel.difference for panel in maps] == [False, False, True]
    limits = [axes.images[0].get_clim() for axes in draw(picture).axes if axes.images]
    assert limits == [(0, 1), (0, 1), (-1, 1)]


def test_runs_stand_in_one_panel_for_each_context_length() -> None:
    runs = {"a": {256: [cell(256, 0, 200, 9)], 512: [cell(512, 0, 400, 3)]}, "b": {512: [cell(512, 0, 400, 8)]}}
    picture = passkey_lines(runs, 128, "keys", by_distance=True)
    panels = [panel for panel in picture.panels if isinstance(panel, LinePanel)]
    assert [panel.title for panel in panels] == ["256 tokens", "512 tokens"]
    assert [[(line.label, line.x, line.y) for line in panel.lines] for panel in panels] == [
        [("a", [200], [0.9]), ("b", [], [])], [("a", [400], [0.3]), ("b", [400], [0.8])],
    ]  # fmt: skip
    (panel,) = passkey_lines(runs, 128, "keys", by_distance=False).panels
    assert isinstance(panel, LinePanel) and panel.log_x
    assert [(line.label, line.x, line.y) for line in panel.lines] == [
        ("a", [256, 512], [0.9, 0.3]),
        ("b", [512], [0.8]),
    ]


def recorded(mode: str, cells: dict[int, list[PasskeyCell]], k_max: dict[str, int] | None) -> dict[str, Any]:
    return {
        "protocol": {"mode": mode, "rope": {"original_context": 128}, "position": {"class": "Extrapolate"}},
        "partial": False,
        "cells": [entry._asdict() for own in cells.values() for entry in own],
        "lengths": [{"context_length": length, "k_max": k_max} for length in cells],
    }


def test_runs_are_shown_as_their_mode_and_number_ask() -> None:
    one, two, less = (columns(correct) for correct in ([[9, 1], [2, 4]], [[1, 2], [3, 4]], [[1, 2, 3], [3, 4, 5]]))
    first, second = Run("base", Path("base")), Run("tuned", Path("tuned"))
    reached = {"20": 250}
    alone = passkey_figures({"keys": {first: recorded("paper", one, reached)}})["keys/passkey"]
    assert alone.title == "keys, base: Extrapolate"
    assert alone.panels[0].lines[0].label == "256 tokens, k_max@20 250"
    pair = {first: recorded("grid", one, reached), second: recorded("grid", two, reached)}
    unlike = {first: recorded("grid", one, reached), second: recorded("grid", less, reached)}
    drawn = {run: recorded("random", found, None) for run, found in ((first, one), (second, two))}
    found = passkey_figures({"alike": pair, "unlike": unlike, "drawn": drawn})
    assert list(found) == ["alike/passkey", "unlike/passkey", "drawn/passkey"]
    assert [panel and panel.title for panel in found["alike/passkey"].panels] == [
        "base: Extrapolate", None, "tuned: Extrapolate", "less the first run's",
    ]  # fmt: skip
    assert [panel.title for panel in found["unlike/passkey"].panels] == ["256 tokens", "512 tokens"]
    (panel,) = found["drawn/passkey"].panels
    assert [line.label for line in panel.lines] == ["base: Extrapolate", "tuned: Extrapolate"]
    assert not any(line.low or line.high for line in panel.lines), "intervals of compared runs overlap and say nothing"


def test_compared_runs_are_drawn_with_their_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = paired_shares([(True, True), (True, False), (False, True), (False, True), (False, False)])
    pairs = [PairedPasskeys("keys", 256, shares), PairedPasskeys("others", 512, shares)]
    monkeypatch.setattr("lit_pi.evaluations.passkey.figures.paired_passkeys", lambda *_: pairs)
    cells = columns([[9, 1], [2, 4]])
    records = {Run(name, Path(name)): recorded("random", cells, None) for name in ("base", "tuned")}
    _, panel = passkey_figures({"keys": records})["keys/passkey"].panels
    (line,) = panel.lines
    assert (line.label, line.x, line.bars) == ("tuned: Extrapolate", [256], True) and "less base" in panel.title
    assert (*line.y, *line.low, *line.high) == pytest.approx((20, 100 * shares.low, 100 * shares.high))
