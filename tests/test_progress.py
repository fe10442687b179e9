"""Slow work says how far it has come, quick work says nothing."""

import pytest
from lightning_utilities.core.rank_zero import rank_zero_only

from lit_pi import progress as progress_module
from lit_pi.progress import progress


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "DELAY", 1e-9)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    found = capsys.readouterr()
    assert not found.out
    return found.err


def test_quick_work_shows_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress("Counting", range(3))) == [0, 1, 2]
    assert said(capsys) == ""


@pytest.mark.usefixtures("impatient")
def test_slow_loops_and_steps_say_how_far_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress("Counting", range(3))) == [0, 1, 2]
    assert "Counting: 100%" in (bar := said(capsys)) and "3/3" in bar
    with progress("Tracing", total=4) as steps:
        steps.update(2)
    assert "2/4" in said(capsys)


@pytest.mark.usefixtures("impatient")
def test_work_of_unknown_size_says_what_it_counts(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("Tokenizing") as steps:
        steps.set_description_str("Tokenizing: 7 documents", refresh=False)
        steps.update()
    assert "Tokenizing: 7 documents [" in (bar := said(capsys)) and "?" not in bar


@pytest.mark.usefixtures("impatient")
def test_one_process_of_many_speaks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1, raising=False)
    assert list(progress("Counting", range(3))) == [0, 1, 2]
    assert said(capsys) == ""
    assert list(progress("Counting", range(3), shown=True)) == [0, 1, 2]
    assert "3/3" in said(capsys)
