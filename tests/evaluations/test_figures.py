"""Pictures as they are drawn: all that was given is there, whole and readable."""

import ast
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

import lit_pi.evaluations
from lit_pi.evaluations.figures import Line, LinePanel, MapPanel, Mark, Picture, Point, draw, save

LENGTHS = [2048, 3072, 4096, 5120, 6144, 7168, 8192, 16384, 131072]
LONG = "a run of many words and parameters (" + ", ".join(f"parameter_{n} {n}" for n in range(12)) + ")"


def test_a_curve_with_intervals_in_three_lines(tmp_path: Path) -> None:
    line = Line("base", [2048, 4096], [0.9, 0.6], low=[0.8, 0.5], high=[0.95, 0.7])
    panel = LinePanel([line], xlabel="context length (tokens)", ylabel="keys found", log_x=True, percent=True)
    paths = save(Picture("retrieval", [panel]), tmp_path / "figures", "retrieval")
    assert paths == [tmp_path / "figures" / f"retrieval.{ending}" for ending in ("png", "svg")]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    drawing = paths[1].read_text()
    for text in ("retrieval", "base", "2,048", "context length (tokens)", "keys found", "60%"):
        assert f"<!-- {text} -->" in drawing
    assert sorted(paths[0].parent.iterdir()) == paths
    (axes,) = draw(Picture("retrieval", [panel])).axes
    assert [list(part.get_xdata()) for part in axes.lines] == [[2048, 4096]]
    assert list(axes.lines[0].get_ydata()) == [0.9, 0.6]
    corners = {(float(x), float(y)) for x, y in axes.collections[0].get_paths()[0].vertices}
    assert corners >= {(2048, 0.8), (4096, 0.5), (2048, 0.95), (4096, 0.7)}


def test_a_picture_that_cannot_be_finished_leaves_the_one_before(tmp_path: Path) -> None:
    picture = Picture("", [LinePanel([Line("a", [1, 2], [1, 2])])])
    before = [path.read_bytes() for path in save(picture, tmp_path, "curve")]

    def fail(*arguments: object, **options: object) -> None:
        raise OSError("no space left")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", fail)
        with pytest.raises(OSError, match="no space"):
            save(picture, tmp_path, "curve")
    assert [(tmp_path / f"curve.{ending}").read_bytes() for ending in ("png", "svg")] == before


def pictures() -> dict[str, Picture]:
    explodes = [7.0 * (length / 2048) ** 3 for length in LENGTHS]
    curves = [Line(LONG, LENGTHS, explodes), *(Line(f"{n}: {LONG[:n]}", LENGTHS, [7.0] * 9) for n in range(20, 50))]
    marks = [Mark(2048, "original context, 2,048"), Mark(10, "ten", axis="y")]
    panel = LinePanel(curves, "heading", "context length (tokens)", "perplexity", True, True, marks=marks)
    linear = LinePanel([Line("a", [0, 131072], [0, 1])], xlabel="tokens", percent=True, x_from=0)
    values = [[(row + column) % 11 / 10 for column in range(12)] for row in range(21)]
    lengths, depths = [f"{1024 * n:,}" for n in range(120, 132)], [f"{5 * row}%" for row in range(21)]
    grid = MapPanel(values, depths, lengths, "", "context length (tokens)", "depth", "found (%)", percent=True)
    grid = grid._replace(marks=[Mark(3.5, "edge")])
    return {
        "alone": Picture(f"{LONG}, alone", [panel]),
        "beside": Picture("beside", [linear, linear._replace(title="b"), panel, None, linear], columns=2),
        "map": Picture(LONG, [grid]),
        "maps": Picture("maps", [grid, None, grid, grid._replace(difference=True, low=-1)], columns=2),
    }


@pytest.mark.parametrize("name", pictures())
def test_nothing_is_cut_off_and_no_ticks_touch(name: str) -> None:
    figure = draw(pictures()[name])
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    labels = [label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in axis.get_ticklabels()]
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    assert len(texts) > 20
    for text in texts:
        if not any(text is label for label in labels):  # those outside their axis are not drawn
            box = text.get_window_extent()
            assert min(box.x0, box.y0) >= 0 and box.x1 <= width and box.y1 <= height, text.get_text()
    for axes in figure.axes:
        for place, axis in enumerate((axes.xaxis, axes.yaxis)):
            low, high = sorted(axis.get_view_interval())
            written = [label for label in axis.get_ticklabels() if label.get_text() and label.get_visible()]
            boxes = sorted(
                label.get_window_extent().get_points()[:, place].tolist()
                for label in written
                if low <= label.get_position()[place] <= high
            )
            assert all(one[1] <= other[0] for one, other in pairwise(boxes)), axis
            assert all(begin >= 0 and end <= (width, height)[place] for begin, end in boxes), axis


def colours(axes: Axes) -> dict[float, str]:
    """Colour by the first value of each line."""
    return {float(line.get_ydata()[0]): str(line.get_color()) for line in axes.lines if len(line.get_xdata())}


def test_a_label_looks_the_same_in_every_panel_and_stands_in_the_legend_once() -> None:
    one = LinePanel([Line("a", [1, 2], [1, 2]), Line("b", [1, 2], [3, 4])], points=[Point(1.5, 2, "here", "b")])
    two = LinePanel([Line("b", [1, 2], [5, 6]), Line("", [1, 2], [7, 8])], marks=[Mark(1, line="b"), Mark(1, "end")])
    figure = draw(Picture("", [one, two], columns=2))
    first, second = (colours(axes) for axes in figure.axes)
    assert first[3] == second[5] == first[2] and len({first[1], first[3], second[7]}) == 3
    assert sorted(line.get_color() for line in figure.axes[1].lines if list(line.get_xdata()) == [1, 1]) == sorted(
        [first[3], "0.4"]
    )
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "here", "end"]


def test_what_is_not_known_leaves_a_gap_and_one_point_has_a_bar() -> None:
    gap = Line("gap", [1, 2, 3, 4], [1, None, math.inf, 4], [0, 0, None, 3], [2, 2, math.inf, 5])
    (axes,) = draw(Picture("", [LinePanel([gap, Line("one", [2], [3], [1], [6])])])).axes
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [1, np.nan, np.nan, 4])
    band, bar = (collection.get_paths()[0].vertices for collection in axes.collections)
    assert {float(x) for x, _ in band} == {1, 2, 4} and bar.tolist() == [[2, 1], [2, 6]]
    assert axes.get_ylim()[1] < 7


def test_signs_that_matplotlib_reads_as_commands_stay_as_they_are(tmp_path: Path) -> None:
    line = Line("_cost of $5 or $6_", [1, 2], [1, 2])
    _, path = save(Picture("$a$ and $b", [LinePanel([line], title="$x^2$")]), tmp_path, "signs")
    drawing = path.read_text()
    for text in ("_cost of $5 or $6_", "$a$ and $b", "$x^2$"):
        assert f"<!-- {text} -->" in drawing


def numbers(panel: MapPanel) -> dict[tuple[int, int], tuple[str, str]]:
    """Number and its colour by row and column."""
    axes = draw(Picture("", [panel])).axes[0]
    return {(int(t.get_position()[1]), int(t.get_position()[0])): (t.get_text(), t.get_color()) for t in axes.texts}


def test_a_map_says_its_numbers_where_they_can_be_read() -> None:
    panel = MapPanel([[1, 0.25], [None, 0]], ["a", "b"], ["c", "d"], percent=True)
    assert numbers(panel) == {(0, 0): ("100", "black"), (0, 1): ("25", "white"), (1, 1): ("0", "white")}
    differences = MapPanel([[0.5, -0.001], [-1, None]], ["a", "b"], ["c", "d"], percent=True, difference=True)
    assert numbers(differences) == {(0, 0): ("+50", "black"), (0, 1): ("0", "black"), (1, 0): ("-100", "white")}
    assert draw(Picture("", [differences])).axes[0].images[0].get_clim() == (-1, 1)
    plain = MapPanel([[2.34567, 10]], ["a"], ["c", "d"])
    assert [text for text, _ in numbers(plain).values()] == ["2.35", "10"]
    assert draw(Picture("", [plain])).axes[0].images[0].get_clim() == (2.34567, 10)
    assert not numbers(MapPanel([[1.0] * 2] * 80, ["a"] * 80, ["c", "d"]))
    assert not numbers(MapPanel([[1.0] * 80] * 2, ["a"] * 2, ["c"] * 80, percent=True))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([4.0, 13.0], ["4", "5", "6", "8", "10"]),
        ([7.0, 3000.0], ["10", "30", "100", "300", "1,000", "3,000"]),
        ([7.0, 2e7], ["10", "100", "1,000", "10,000", "100,000", "1e6", "1e7"]),
    ],
)
def test_a_logarithmic_axis_has_few_round_ticks(values: list[float], expected: list[str]) -> None:
    (axes,) = draw(Picture("", [LinePanel([Line("a", [1, 2], values)], log_y=True)])).axes
    low, high = axes.get_ylim()
    assert [t.get_text() for t in axes.get_yticklabels() if low <= t.get_position()[1] <= high] == expected


def test_only_drawing_imports_matplotlib() -> None:
    folder = Path(lit_pi.evaluations.__file__).parent
    importers = {
        path.relative_to(folder).parts[0]
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
        if name.split(".")[0] == "matplotlib"
    }
    assert importers == {"drawing", "figures.py"}  # the latter for type checkers alone
