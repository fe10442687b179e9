"""Results on the disk, and the report made of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from lit_pi.errors import UserError
from lit_pi.evaluation.report import report
from lit_pi.evaluation.results import add_record, load_records


def record(stage: str = "test", step: int = 0, perplexity: float = 4.0, **position: Any) -> dict[str, Any]:
    curve = [
        {"context_length": length, "perplexity": perplexity * factor, "token_nll": 1.0, "tokens": 10}
        for length, factor in ((256, 1), (1024, 2.5))
    ]
    return {
        "kind": "perplexity_curve", "evaluation": "books", "stage": stage, "step": step, "partial": False,
        "curve": curve,
        "protocol": {"position": {"class": "Extrapolate"} | position, "rope": {"original_context": 256}},
    }  # fmt: skip


def test_steps_of_training_add_up_and_a_test_replaces_the_test_before(tmp_path: Path) -> None:
    records = [record("fit", 1), record("fit", 2), record("test", 2), record("fit", 2, 5.0), record("test", 9, 6.0)]
    for each in records:
        add_record(tmp_path, each)
    found = [(each["stage"], each["step"], each["curve"][0]["perplexity"]) for each in load_records(tmp_path)]
    assert found == [("fit", 1, 4.0), ("fit", 2, 5.0), ("test", 9, 6.0)]


@pytest.mark.parametrize("content", ["{", "[]", '{"records": []}', '{"schema_version": 999, "records": []}'])
def test_what_is_no_results_file_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results\.json .*test again"):
        load_records(tmp_path)


def test_a_report_sets_runs_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_record(tmp_path / "base", record("fit", 3, 9.0))
    add_record(tmp_path / "base", record())
    add_record(tmp_path / "longer", record(perplexity=5.0, **{"class": "Interpolate", "scale": 4.0}))
    add_record(tmp_path / "trained", record("fit", 1, 8.0))
    add_record(tmp_path / "trained", record("fit", 2, 7.0))
    report([tmp_path / name for name in ("base", "longer", "trained")], tmp_path / "report")
    markdown = (tmp_path / "report" / "report.md").read_text()
    assert "| context length | base: Extrapolate | longer: Interpolate (scale 4) | trained: Extrapolate |" in markdown
    assert "| 256 | 4.00 | 5.00 | 7.00 |\n| 1,024 | 10.00 | 12.50 | 17.50 |" in markdown
    assert "books-perplexity.png" in markdown
    assert (tmp_path / "report" / "books-perplexity.png").read_bytes().startswith(b"\x89PNG")
    assert "12.50" in capsys.readouterr().out


def test_runs_without_a_curve_are_named(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"schema_version": 1, "records": []}))
    with pytest.raises(UserError, match="hold no perplexity curve"):
        report([tmp_path], tmp_path / "report")
