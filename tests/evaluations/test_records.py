"""Results on the disk."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import lit_pi
from lit_pi.errors import UserError
from lit_pi.evaluations.parquet import read_columns, write_columns
from lit_pi.evaluations.records import Run, add_record, label, load_records, marked
from lit_pi.files import write_sealed


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


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"records": [{}]}', '{"records": 3}', '{"records": ["a"]}', "\xff", "", "[" * 100_000]
)
def test_what_is_no_results_file_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"results\.json .*test again"):
        load_records(tmp_path)


def test_results_of_another_version_or_that_were_changed_are_refused(tmp_path: Path) -> None:
    write_sealed(tmp_path / "results.json", {"schema_version": 999, "records": []})
    with pytest.raises(UserError, match=r"results\.json has schema version 999"):
        load_records(tmp_path)
    add_record(tmp_path / "run", record())
    results = tmp_path / "run" / "results.json"
    results.write_text(results.read_text().replace("4.0", "4.1"))
    with pytest.raises(UserError, match=r"not what was written, by its checksum.: remove it and test again"):
        load_records(tmp_path / "run")


def test_what_was_measured_is_kept_beside_results_that_are_damaged(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{")
    with pytest.warns(UserWarning, match=r"It is now .*results\.json\.damaged, and new results begin"):
        add_record(tmp_path, record())
    assert len(load_records(tmp_path)) == 1 and (tmp_path / "results.json.damaged").read_text() == "{"


def test_a_second_damaged_file_leaves_the_first_alone(tmp_path: Path) -> None:
    for content in ("one", "two"):
        (tmp_path / "results.json").write_text(content)
        with pytest.warns(UserWarning, match="new results begin"):
            add_record(tmp_path, {"kind": "a", "evaluation": "b", "stage": "test", "step": 0})
    assert sorted(path.read_text() for path in tmp_path.glob("results.json.damaged*")) == ["one", "two"]


def test_a_table_that_is_not_the_one_of_the_results_is_refused(tmp_path: Path) -> None:
    for run, loss in (("a", 1.0), ("b", 2.0)):
        write_columns(tmp_path / run / "items.parquet", {"id": ["one"], "loss": [loss]})
        add_record(tmp_path / run, record() | {"table": "items.parquet"})
    (found,) = load_records(tmp_path / "a")
    assert read_columns(tmp_path / "a", found) == {"id": ["one"], "loss": [1.0]}
    assert read_columns(tmp_path / "a", found, ["loss"]) == {"loss": [1.0]}
    with pytest.raises(UserError, match=r"cannot read the table .*other"):
        read_columns(tmp_path / "a", found, ["other"])
    (tmp_path / "b" / "items.parquet").replace(tmp_path / "a" / "items.parquet")
    with pytest.raises(UserError, match=r"cannot read the table .*a/items.parquet .it is not the one .*: test that"):
        read_columns(tmp_path / "a", found)


def test_a_record_says_which_versions_gave_it(tmp_path: Path) -> None:
    add_record(tmp_path, record())
    (found,) = load_records(tmp_path)
    expected = {"torch": torch.__version__, "transformers": transformers.__version__, "lit_pi": lit_pi.__version__}
    assert found["versions"].items() >= expected.items()


def test_what_is_not_finite_is_json_and_marked(tmp_path: Path) -> None:
    assert marked(record()) == record()
    failed = marked(record() | {"curve": [{"perplexity": math.inf}, {"perplexity": math.nan}]})
    assert failed["failed"] == "curve.0.perplexity is not finite"
    add_record(tmp_path, failed)

    def no_json(name: str) -> None:
        raise AssertionError(name)

    json.loads((tmp_path / "results.json").read_text(), parse_constant=no_json)
    (read,) = load_records(tmp_path)
    assert read["curve"][0]["perplexity"] == math.inf and math.isnan(read["curve"][1]["perplexity"])
    assert label(Run("run", tmp_path), read | {"protocol": {"position": {"class": "YaRN"}}}) == "run: YaRN (failed)"
