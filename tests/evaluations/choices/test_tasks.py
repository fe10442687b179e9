"""Each task's questions, word for word, out of the formats that its dataset is given away in."""

import json
import socket
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from lit_pi.data.corpora import files
from lit_pi.errors import UserError
from lit_pi.evaluations.choices.tasks import PIQA, RACE, BoolQ, Question, Task, WinoGrande

ARTICLE = "Tom had two cats.\nOne was grey."
CONTEXT = "Article:\nTom had two cats.\nOne was grey.\n\nQ: {}\n\nA:"
NESTED = {
    "article": ARTICLE,
    "questions": ["How many cats?", "One cat was _ ."],
    "options": [["One", "Two", "Three", "Four"], ["grey", "black", "white", "blue"]],
    "answers": ["B", "A"],
    "id": "high1.txt",
}
FLAT = [
    {"article": ARTICLE, "question": question, "options": options, "answer": answer, "example_id": "high1.txt"}
    for question, options, answer in zip(NESTED["questions"], NESTED["options"], NESTED["answers"], strict=True)
]

RECORDS: dict[type[Task], list[dict[str, Any]]] = {
    BoolQ: [
        {"passage": "Ice floats. ", "question": "is ice lighter than water", "answer": True},
        {"passage": "Fire is hot.", "question": "is fire cold?", "answer": False},
    ],
    PIQA: [{"goal": "Open a jar", "sol1": "Push the lid.", "sol2": " Turn the lid.", "label": 1}],
    RACE: FLAT,
    WinoGrande: [
        {"sentence": "Ann left Bo as _ was tired.", "option1": "Ann", "option2": "Bo", "answer": "1"},
        {"sentence": "The ball broke the glass; the _'s edge is sharp. ", "option1": "ball", "option2": "glass",
         "answer": "2"},
    ],
}  # fmt: skip
EXPECTED: dict[type[Task], list[tuple[tuple[str, ...], tuple[str, ...], int]]] = {
    BoolQ: [
        (("Ice floats.\nQuestion: is ice lighter than water?\nAnswer:",) * 2, (" no", " yes"), 1),
        (("Fire is hot.\nQuestion: is fire cold?\nAnswer:",) * 2, (" no", " yes"), 0),
    ],
    PIQA: [(("Question: Open a jar\nAnswer:",) * 2, (" Push the lid.", " Turn the lid."), 1)],
    RACE: [
        ((CONTEXT.format("How many cats?"),) * 4, (" One", " Two", " Three", " Four"), 1),
        ((CONTEXT.format("One cat was _ ."),) * 4, (" grey", " black", " white", " blue"), 0),
    ],
    WinoGrande: [
        (("Ann left Bo as Ann", "Ann left Bo as Bo"), (" was tired.",) * 2, 0),
        (("The ball broke the glass; the ball", "The ball broke the glass; the glass"), ("'s edge is sharp.",) * 2, 1),
    ],
}
TASKS = list(EXPECTED)


def write(path: Path, records: list[dict[str, Any]]) -> str:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("opened a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("task", TASKS)
def test_local_files_are_questions_word_for_word(
    task: type[Task], ending: str, tmp_path: Path, no_sockets: None
) -> None:
    found = task(files=write(tmp_path / f"test.{ending}", RECORDS[task])).questions()
    assert [question[1:] for question in found] == EXPECTED[task]
    assert [question.id for question in found] == [f"test.{ending}:{line}" for line in range(1, len(found) + 1)]


def test_races_formats_are_the_same_questions_and_all_count(tmp_path: Path) -> None:
    (tmp_path / "original" / "high").mkdir(parents=True)
    for name in ("1", "2"):
        (tmp_path / "original" / "high" / f"{name}.txt").write_text(json.dumps(NESTED))
    lines = write(tmp_path / "lines.jsonl", [NESTED, NESTED])
    flat = write(tmp_path / "flat.jsonl", FLAT * 2)
    original = RACE(files=str(tmp_path / "original")).questions()
    assert [question.id for question in original] == [f"high/{name}.txt:{n}" for name in (1, 2) for n in (1, 2)]
    for files_ in (lines, flat):
        found = RACE(files=files_).questions()
        assert [question[1:] for question in found] == [question[1:] for question in original] == EXPECTED[RACE] * 2
        assert len({question.id for question in found}) == 4


def test_the_title_of_the_original_stands_before_the_passage(tmp_path: Path) -> None:
    record = {"title": "Ice", **RECORDS[BoolQ][0]}
    (question,) = BoolQ(files=write(tmp_path / "dev.jsonl", [record])).questions()
    assert question.contexts[0] == "Ice -- Ice floats.\nQuestion: is ice lighter than water?\nAnswer:"


def test_files_are_read_in_the_order_they_are_named(tmp_path: Path) -> None:
    names = [write(tmp_path / f"{name}.jsonl", RECORDS[PIQA]) for name in "ba"]
    assert [question.id for question in PIQA(files=names).questions()] == ["b.jsonl:1", "a.jsonl:1"]


BROKEN: list[tuple[type[Task], dict[str, Any], str]] = [
    (BoolQ, {"answer": "yes"}, r"test\.jsonl, line 2, holds 'yes' in 'answer', not one of False, True"),
    (BoolQ, {"answer": 1}, "holds 1 in 'answer'"),
    (BoolQ, {"passage": " "}, "holds ' ' in 'passage', not a text"),
    (PIQA, {"label": -1}, "holds -1 in 'label', not one of 0, 1: name files with answers"),
    (PIQA, {"sol2": None}, "holds None in 'sol2'"),
    (RACE, {"answer": "E"}, "holds 'E' in 'answer', not one of 'A', 'B', 'C', 'D'"),
    (RACE, {"options": "One"}, "holds 'One' in 'options', not a list"),
    (RACE, {"options": ["One"]}, "has 1 options"),
    (RACE, {"questions": ["Why?"], "answers": ["A", "B"]}, "has 1 questions, 4 lists of options and 2 answers"),
    (WinoGrande, {"answer": ""}, "holds '' in 'answer', not one of '1', '2': name files with answers"),
    (WinoGrande, {"sentence": "Ann left."}, "has no blank '_'"),
    (WinoGrande, {"sentence": "Ann left _"}, "has no blank '_' before the end"),
]


@pytest.mark.parametrize(("task", "change", "message"), BROKEN)
def test_a_record_of_another_form_is_named(
    task: type[Task], change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    first = RECORDS[task][0]
    with pytest.raises(UserError, match=message):
        task(files=write(tmp_path / "test.jsonl", [first, {**first, **change}])).questions()


@pytest.mark.parametrize("task", TASKS)
def test_a_field_that_is_missing_is_named(task: type[Task], tmp_path: Path) -> None:
    for field in RECORDS[task][0].keys() - {"example_id"}:
        record = {name: value for name, value in RECORDS[task][0].items() if name != field}
        for ending in ("jsonl", "parquet"):
            with pytest.raises(UserError, match=f"has no (field|column) '{field}'|in '{field}', not a list"):
                task(files=write(tmp_path / f"test.{ending}", [record])).questions()


def test_files_without_questions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no questions in .*empty\.jsonl: bring PIQA"):
        PIQA(files=write(tmp_path / "empty.jsonl", [])).questions()
    (tmp_path / "latin.jsonl").write_bytes(b'{"goal": "caf\xe9"}\n')
    with pytest.raises(UserError, match=r"latin\.jsonl, line 1, is not UTF-8"):
        PIQA(files=str(tmp_path / "latin.jsonl")).questions()
    (tmp_path / "plain.txt").write_text("not JSON")
    with pytest.raises(UserError, match=r"plain\.txt is not a JSON object"):
        RACE(files=str(tmp_path / "plain.txt")).questions()


@pytest.mark.parametrize(
    ("task", "pattern"),
    [
        (BoolQ(), "google/boolq.*bring BoolQ .*`passage`, `question` and `answer`.*`files`"),
        (PIQA(), "ybisk/piqa.*bring PIQA .*`goal`, `sol1`, `sol2`, `label`"),
        (RACE("middle"), "ehovy/race@refs/convert/parquet/middle/test/.*bring RACE"),
        (RACE(), "ehovy/race@refs/convert/parquet/high/test/"),
        (WinoGrande(), "allenai/winogrande.*winogrande_xl/validation.*bring WinoGrande"),
    ],
)
def test_without_network_the_files_to_bring_are_named(
    task: Task, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*arguments: object, **options: object) -> str:
        raise FileNotFoundError("not in the cache")

    monkeypatch.setattr(files, "snapshot_download", missing)
    with pytest.raises(UserError, match=rf"cannot read hf://datasets/{pattern}"):
        task.questions()


def test_a_file_given_twice_under_one_name_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    task = PIQA(files=write(tmp_path / "test.jsonl", RECORDS[PIQA]))
    question = Question("test.jsonl:1", ("a",) * 2, (" b", " c"), 0)
    monkeypatch.setattr(task, "_questions", lambda record: iter([question, question]))
    with pytest.raises(UserError, match=r"2 questions are called test\.jsonl:1: give the files of PIQA other names"):
        task.questions()
