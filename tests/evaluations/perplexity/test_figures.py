"""What pictures of perplexities say: every point, its interval, and where training ended."""

import math
from dataclasses import asdict
from pathlib import Path

import pytest

from lit_pi.evaluations.figures import LinePanel, Mark, draw
from lit_pi.evaluations.perplexity.figures import loss_by_position_figure, perplexity_figure, perplexity_figures
from lit_pi.evaluations.perplexity.measures import CurvePoint
from lit_pi.evaluations.perplexity.window_sums import Bucket
from lit_pi.evaluations.records import Run

CURVE = [CurvePoint(256, 4.0, math.log(4), 10, low=3.5, high=4.5), CurvePoint(512, 5.0, math.log(5), 10)]


def test_a_curve_has_its_points_intervals_and_original_context() -> None:
    (panel,) = perplexity_figure({"books": CURVE}, 256).panels
    assert isinstance(panel, LinePanel) and panel.log_x
    (line,) = panel.lines
    assert (line.label, line.x, line.y) == ("books", [256, 512], [4, 5])
    assert (line.low, line.high) == ([3.5, None], [4.5, None])
    assert panel.marks == [Mark(256, "original context, 256")]
    assert not perplexity_figure({"books": CURVE}, None).panels[0].marks


@pytest.mark.parametrize(("most", "logarithmic"), [(11.9, False), (12.0, True), (math.inf, False)])
def test_an_axis_is_logarithmic_where_perplexities_are_far_apart(most: float, logarithmic: bool) -> None:
    curve = [*CURVE, CurvePoint(1024, most, math.log(most), 10)]
    (panel,) = perplexity_figure({"a": curve, "b": CURVE}, 256).panels
    assert panel.log_y == logarithmic
    axes = draw(perplexity_figure({"a": curve, "b": CURVE}, 256)).axes[0]
    assert axes.get_yscale() == ("log" if logarithmic else "linear")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["256", "512", "1,024"]
    assert axes.get_ylim()[1] < 20


def test_losses_stand_in_the_middle_of_their_buckets() -> None:
    buckets = [Bucket(0, 4, 3.0, 10), Bucket(4, 20, 2.0, 10)]
    picture = loss_by_position_figure({64: buckets, 32: buckets[:1]}, "books")
    (panel,) = picture.panels
    assert isinstance(panel, LinePanel) and panel.log_x and picture.title == "books"
    assert [(line.label, line.x, line.y) for line in panel.lines] == [("32", [2], [3]), ("64", [2, 10], [3, 2])]
    assert panel.marks == [Mark(32, line="32"), Mark(64, line="64")]


def test_each_run_is_a_line_of_one_curve_and_has_its_own_losses_by_position() -> None:
    def record(position: str, original: int) -> dict:
        return {
            "protocol": {"rope": {"original_context": original}, "position": {"class": position, "scale": 2.0}},
            "partial": False,
            "definition": "token_weighted",
            "curve": [asdict(point) for point in CURVE],
            "positions": [{"context_length": 64, "buckets": [Bucket(0, 4, 3.0, 10)._asdict()]}],
        }

    records = {
        Run("base", Path("base")): record("Extrapolate", 512), Run("a/tuned", Path("a/tuned")): record("YaRN", 256),
    }  # fmt: skip
    found = perplexity_figures({"books": records})
    assert list(found) == ["books/perplexity", "books/loss_by_position-base", "books/loss_by_position-a/tuned"]
    curves = found["books/perplexity"].panels[0]
    assert [line.label for line in curves.lines] == ["base: Extrapolate (scale 2)", "a/tuned: YaRN (scale 2)"]
    assert [line.y for line in curves.lines] == [[4, 5]] * 2 and curves.marks[0].at == 256
    assert not any(line.low or line.high for line in curves.lines), "bands of compared runs overlap and say nothing"
    assert found["books/loss_by_position-a/tuned"].title == "books, a/tuned: YaRN (scale 2)"
    assert found["books/loss_by_position-base"].panels[0].lines[0].y == [3]
