"""Two runs compared document by document, out of the tables that they have written."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from scipy.stats import ttest_rel

from lit_pi.errors import UserError
from lit_pi.evaluations.figures import Mark
from lit_pi.evaluations.parquet import write_columns
from lit_pi.evaluations.perplexity.figures import perplexity_figures
from lit_pi.evaluations.perplexity.measures import SeriesTotals
from lit_pi.evaluations.perplexity.paired import paired_perplexities
from lit_pi.evaluations.perplexity.sampled.sampling import Totals
from lit_pi.evaluations.perplexity.score_tables import ROW_GROUP, document_columns, write_tokens
from lit_pi.evaluations.perplexity.tables import perplexity_differences
from lit_pi.evaluations.perplexity.token_scores import Series, TokenLosses
from lit_pi.evaluations.records import Run, add_record

TOKENS = 40.0


def run(
    folder: Path, losses: np.ndarray, *, partial: bool = False, windows: str = "w", sampling: dict | None = None
) -> Path:
    """A run directory whose documents of 40 tokens have these mean losses, and half of them in bits per byte."""
    x = np.full(len(losses), TOKENS)
    definitions = {
        "token_weighted": Totals(losses * TOKENS, x, np.empty(0)),
        "bits_per_byte": Totals(losses * TOKENS, 2 * x, np.empty(0)),
    }  # fmt: skip
    totals = [SeriesTotals(Series("sliding", 64), x, losses * TOKENS, None, definitions)]
    write_columns(
        folder / "scores" / "pg19-test.parquet", document_columns([f"d{n}" for n in range(len(losses))], totals)
    )
    protocol: dict[str, Any] = {"windows_fingerprint": windows, "sampling": sampling}
    record = {"kind": "perplexity_curve", "evaluation": "pg19", "stage": "test", "step": 0, "partial": partial}
    add_record(folder, record | {"table": "scores/pg19-test.parquet", "protocol": protocol})
    return folder


@pytest.fixture
def losses() -> tuple[np.ndarray, np.ndarray]:
    """Of two models on 30 documents that differ much more than the models do, by differences without skew."""
    chance = np.random.default_rng(0)
    first, apart = chance.normal(2, 0.4, 30), chance.normal(0, 0.02, 15)
    return first, first - 0.03 + np.concatenate((apart, -apart))


def test_equal_documents_give_the_paired_t_interval(tmp_path: Path, losses: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = losses
    found = paired_perplexities(run(tmp_path / "a", first), run(tmp_path / "b", second))
    assert [entry.definition for entry in found] == ["token_weighted", "bits_per_byte"]
    nats, bits = found
    interval, difference = ttest_rel(second, first).confidence_interval(), nats.difference
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))
    assert difference.value == pytest.approx(np.mean(second - first))
    assert difference.effective_documents == pytest.approx(30)
    assert nats.ratio == pytest.approx(math.exp(difference.value)) and nats.ratio == pytest.approx(
        nats.other / nats.baseline
    )
    assert nats.baseline == pytest.approx(math.exp(first.mean()))
    assert (bits.ratio, bits.baseline) == (None, pytest.approx(first.mean() / 2))
    assert (nats.evaluation, nats.context_length, nats.documents) == ("pg19", 64, 30)


def test_better_is_said_only_where_the_interval_excludes_zero(
    tmp_path: Path, losses: tuple[np.ndarray, np.ndarray]
) -> None:
    first, second = losses
    a, b = run(tmp_path / "a", first), run(tmp_path / "b", second)
    assert paired_perplexities(a, b)[0].better == "other"
    assert paired_perplexities(b, a)[0].better == "baseline"
    unclear = run(tmp_path / "c", first + np.random.default_rng(1).normal(0, 0.02, 30))
    (entry, _) = paired_perplexities(a, unclear)
    assert entry.better is None and entry.difference.low < 0 < entry.difference.high


def test_better_is_withheld_where_one_document_carries_the_interval(
    tmp_path: Path, losses: tuple[np.ndarray, np.ndarray]
) -> None:
    """Twelve documents that gain 0.1 nats each, and one that gains 0.5: the interval excludes zero all the same."""
    first = losses[0][:13]
    second = first - 0.1 - 0.001 * np.arange(13)
    second[6] -= 0.4
    runs = [Run(name, run(tmp_path / name, values)) for name, values in (("a", first), ("b", second))]
    (entry, _) = paired_perplexities(*(each.directory for each in runs))
    assert entry.difference.high < 0 and entry.better is None
    assert entry.difference.unsettled == "one document carries 92 % of the variance"
    (table,) = perplexity_differences({"pg19": {each: {} for each in runs}})
    assert re.search(r"^-0\.1\d+\? \(-0\.\d+ to -0\.\d+\) \[13\.0, 92 %\]$", table.rows[0][2])
    assert "? no star for b, perplexity, 64 and 1 more: one document carries 92 % of the variance" in table.notes
    assert not any(note.startswith("Warning") for note in table.notes)


def test_few_documents_in_effect_are_warned_of_and_fewer_have_no_star(tmp_path: Path) -> None:
    found = {}
    for documents in (3, 6, 9):
        first = np.linspace(2, 3, documents)
        names = [f"{name}{documents}" for name in "ab"]
        second = first - 0.5 - 0.001 * (np.arange(documents) % 3)
        runs = [Run(name, run(tmp_path / name, each)) for name, each in zip(names, (first, second), strict=True)]
        (table,) = perplexity_differences({"pg19": {each: {} for each in runs}})
        warned = any(note.startswith(f"Warning: {documents}.0 documents are in effect") for note in table.notes)
        found[documents] = (table.rows[0][2].split(" ")[0][-1], warned)
    assert found == {3: ("?", True), 6: ("*", True), 9: ("*", False)}


def test_compared_runs_are_drawn_with_their_differences(tmp_path: Path, losses: tuple[np.ndarray, np.ndarray]) -> None:
    protocol = {"rope": {"original_context": 32}, "position": {"class": "YaRN"}}
    record = {"protocol": protocol, "partial": False, "definition": "token_weighted", "curve": [], "positions": []}
    runs = [Run(name, run(tmp_path / name, values)) for name, values in zip("ab", losses, strict=True)]
    panels = perplexity_figures({"pg19": dict.fromkeys(runs, record)})["pg19/perplexity"].panels
    (entry, _) = paired_perplexities(*(each.directory for each in runs))
    (line,) = panels[1].lines
    assert (line.label, line.x, line.y, line.bars) == ("b: YaRN", [64], [entry.difference.value], True)
    assert (line.low, line.high) == ([entry.difference.low], [entry.difference.high])
    assert panels[1].marks == [Mark(0, axis="y")] and "less a" in panels[1].title
    assert len(perplexity_figures({"pg19": {runs[0]: record}})["pg19/perplexity"].panels) == 1


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path, losses: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = losses
    whole = run(tmp_path / "a", first)
    with pytest.raises(UserError, match="measured different windows as pg19: test both with the same documents"):
        paired_perplexities(whole, run(tmp_path / "b", second, windows="other"))
    with pytest.raises(UserError, match="c was cut short while it measured pg19"):
        paired_perplexities(whole, run(tmp_path / "c", second, partial=True))
    few, many = ({"num_windows": number, "of": 900, "seed": 0} for number in (64, 128))
    drawn = run(tmp_path / "d", first, sampling=few)
    with pytest.raises(UserError, match=r"drew different windows for pg19: set num_windows: 128 in both$"):
        paired_perplexities(drawn, run(tmp_path / "e", second, sampling=many))
    with pytest.raises(UserError, match=r"set num_windows: 64 in both$"):
        paired_perplexities(whole, drawn)
    with pytest.raises(UserError, match="set num_windows: 64 in both and the same seed"):
        paired_perplexities(drawn, run(tmp_path / "f", second, sampling=few | {"seed": 1}))
    assert paired_perplexities(drawn, run(tmp_path / "g", second, sampling=few))
    (whole / "scores" / "pg19-test.parquet").write_text("nothing")
    with pytest.raises(UserError, match=r"cannot read the table .*parquet .*: test that run again"):
        paired_perplexities(whole, whole)


def test_losses_of_tokens_are_written_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_pi.evaluations.perplexity.score_tables.ROW_GROUP", 4)
    nll = np.array([1, 2, np.nan, 4, 5, 6, 7, 8, 9], np.float32)
    write_tokens(tmp_path / "t.parquet", TokenLosses(np.array([0, 3, 9]), {Series("sliding", 8): nll}))
    file = pyarrow.parquet.ParquetFile(tmp_path / "t.parquet")
    assert (file.num_row_groups, ROW_GROUP) == (3, 1 << 20)
    table = file.read()
    assert table["document"].to_pylist() == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert table["position"].to_pylist() == [0, 1, 2, 0, 1, 2, 3, 4, 5]
    assert table["sliding_8"].to_pylist() == [1, 2, None, 4, 5, 6, 7, 8, 9]
