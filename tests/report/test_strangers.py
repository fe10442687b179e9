"""Reports made of results that a stranger wrote: nothing outside of the report is read, written or run."""

import copy
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lit_pi.cli import LitPiCLI
from lit_pi.errors import UserError
from lit_pi.evaluations.figures import Line, LinePanel, Picture, save
from lit_pi.evaluations.records import SCHEMA_VERSION, load_records
from lit_pi.evaluations.tables import Table
from lit_pi.files import SEAL, file_name, write_sealed
from lit_pi.report import report, write_tables

pytestmark = pytest.mark.filterwarnings("ignore")

HOSTILE = "A\nB|c [/red][bold]x[/bold] <script>a}\\input{passwd} $x$ \x1b[31m ![p](http://x) \u202ey"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """A run with results of perplexity."""
    directory = tmp_path_factory.mktemp("run")
    LitPiCLI(["test", *tiny, f"--trainer.default_root_dir={directory}"])
    return directory


@pytest.fixture
def forged(run: Path, tmp_path: Path) -> Callable[..., Path]:
    """A run directory whose one record has been changed."""

    def forge(change: Callable[[dict[str, Any]], Any]) -> Path:
        content = json.loads((run / "results.json").read_text())
        record = copy.deepcopy(content["records"][0])
        change(record)
        (tmp_path / "forged").mkdir()
        del content[SEAL]
        sealed(tmp_path / "forged", content | {"records": [record]})
        return tmp_path / "forged"

    return forge


def sealed(directory: Path, content: dict[str, Any]) -> None:
    """Write results as lit_pi does: a checksum keeps nobody from writing what they want."""
    write_sealed(directory / "results.json", content)


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no record": (lambda record: record.clear(), "record 0 has no `kind`"),
    "no curve": (lambda record: record.pop("curve"), "are not what Perplexity writes"),
    "another curve": (lambda record: record.update(curve=[1, 2]), "in record 0 `curve.0` is 1, which is not a mapping"),
    "a step in words": (lambda record: record.update(step="a"), "`step` is a, which is not a whole number"),
    "a step below zero": (lambda record: record.update(step=-1), "`step` is -1, which is not a whole number"),
    "a step that is true": (lambda record: record.update(step=True), "`step` is True, which is not a whole number"),
    "a stage of none": (lambda record: record.update(stage="x\x1b"), "`stage` is x , which is not fit, validate or"),
    "no name": (lambda record: record.update(evaluation=" "), "`evaluation` is  , which is not a name"),
    "another kind": (lambda record: record.update(kind="mine"), "are of kind mine, which Perplexity does not write"),
    "no strategy": (lambda record: record["protocol"].update(position=3), "`protocol.position` is 3, which is not a m"),
    "a file elsewhere": (lambda record: record.update(table="/etc/passwd"), "which is not a file inside of the run"),
    "a file above": (lambda record: record.update(table="../x.parquet"), "which is not a file inside of the run"),
    "below zero": (lambda record: record["curve"][0].update(perplexity=-3), "is -3, which is not a perplexity"),
    "a perplexity in words": (
        lambda record: record["curve"][0].update(perplexity="low"),
        "`curve.0.perplexity` is low",
    ),
    "an end in words": (lambda record: record["curve"][1].update(low="x"), "`curve.1.low` is x, which is not a number"),
    "an endless number": (lambda record: record["curve"][0].update(token_nll=10**400), "which is not a number"),
    "no context": (lambda record: record["curve"][0].update(context_length=0), "is 0, which is not a whole number"),
    "a definition in words": (
        lambda record: record["definitions"]["window_mean"][0].update(value="x"),
        "`definitions.window_mean.0.value` is x",
    ),
    "a sampling in words": (lambda record: record["protocol"].update(sampling="x"), "`protocol.sampling` is x, which"),
    "a training in words": (lambda record: record.update(history=[{"steps": "x"}]), "`history.0.steps` is x, which is"),
    "a version of none": (lambda record: record.update(versions={"torch": 2}), "`versions.torch` is 2, which is not a"),
    "a function": (lambda record: record.update(class_path="os.system"), "cannot be imported"),
    "a module that does things": (lambda record: record.update(class_path="this.d"), "cannot be imported"),
    "another class": (lambda record: record.update(class_path="torch.nn.Linear"), "which is no evaluation"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_records_of_something_else_are_refused(
    case: str, forged: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, said = REFUSED[case]
    with pytest.raises(UserError, match=said):
        report([forged(change)], tmp_path / "report")
    assert not (tmp_path / "report").exists()


PASSKEY = {
    "context_length": 64, "cell": 0, "nominal_distance": 8, "distance": 8.0, "depth": 0.5, "n": 2, "correct": 1,
    "accuracy": 0.5, "low": 0.1, "high": 0.9, "log_probability": None, "token_accuracy": 0.5,
}  # fmt: skip
LENGTH = {
    "context_length": 64, "n": 2, "correct": 1, "accuracy": 0.5, "low": 0.1, "high": 0.9, "k_max": {"20": 8},
    "nearest_missed": None, "furthest_found": 8,
}  # fmt: skip
DECODED = {"consistent": True, "tolerance": 1e-3, "tokens": 8, "max_difference": 1e-5, "mean_difference": None}
ANSWERED = {"normalisation": "characters", "n": 2, "correct": 1, "accuracy": 0.5, "low": 0.1, "high": 0.9}
MEASURE = {
    "measure": "rouge1", "mean": 1.0, "low": None, "high": None, "effective_documents": None, "largest_share": None,
    "seed_deviation": None,
}  # fmt: skip
OTHERS: dict[str, dict[str, Any]] = {
    "passkey": {"cells": [PASSKEY], "lengths": [LENGTH]},
    "decode_consistency": DECODED,
    "multiple_choice": {"accuracies": [ANSWERED]},
    "summarization": {"summaries": 2, "documents": 1, "measures": [MEASURE]},
}


def fields(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Places of all values that are neither mappings nor lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    return [place] if inner is None else [found for key, each in inner for found in fields(each, (*place, key))]


@pytest.mark.parametrize("kind", OTHERS)
def test_every_field_of_every_evaluation_has_its_type(kind: str, tmp_path: Path) -> None:
    """A value of another type, wherever it stands, is told by its place."""
    common = {"kind": kind, "evaluation": "e", "stage": "test", "step": 0, "protocol": {"position": {"class": "X"}}}
    sealed(tmp_path, {"schema_version": SCHEMA_VERSION, "records": [common | OTHERS[kind]]})
    assert load_records(tmp_path)
    for place in fields(OTHERS[kind]):
        record = copy.deepcopy(common | OTHERS[kind])
        *above, last = place
        holder: Any = record
        for key in above:
            holder = holder[key]
        holder[last] = [3]
        sealed(tmp_path, {"schema_version": SCHEMA_VERSION, "records": [record]})
        with pytest.raises(UserError, match=re.escape(f"`{'.'.join(map(str, place))}` is [3], which is not")):
            load_records(tmp_path)


def test_pictures_print_nothing_that_steers_a_terminal(tmp_path: Path) -> None:
    line = Line("a\x1b[31m", [1, 2], [1, 2])
    panel = LinePanel([line], "t\x1b[31m", "x\x1b[31m", "y\x1b[31m")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        save(Picture("p\x1b[31m", [panel], legend="l\x1b[31m"), tmp_path, "picture")
    assert not [str(warning.message) for warning in said if "\x1b" in str(warning.message)]


@pytest.mark.parametrize(
    "content", ["3", "null", '{"schema_version": 3, "records": 3}', "[" * 100_000, b"\xff\xfe", ""]
)
def test_files_of_something_else_are_refused(content: str | bytes, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match="is not a results file of this lit_pi"):
        report([tmp_path], tmp_path / "report")


def test_what_is_not_a_number_is_said_to_have_failed(forged: Callable[..., Path], tmp_path: Path) -> None:
    report([forged(lambda record: record["curve"][0].update(perplexity="NaN"))], tmp_path / "report")
    assert "(failed)" in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.parametrize("name", ["../../esc", "/etc/x", "a}\\input{passwd}", "<script>", "..", "\x1b[31m", "e" * 300])
def test_names_lead_nowhere(name: str, forged: Callable[..., Path], tmp_path: Path) -> None:
    before = {path for path in tmp_path.parent.rglob("*") if "report" not in path.parts}
    report([forged(lambda record: record.update(evaluation=name))], tmp_path / "report")
    after = {path for path in tmp_path.parent.rglob("*") if "report" not in path.parts}
    assert {path.name for path in after - before} <= {"forged", "results.json"}
    markdown, latex = ((tmp_path / "report" / f"report.{ending}").read_text() for ending in ("md", "tex"))
    assert "<script>" not in markdown and "\\input{passwd}" not in latex
    assert all(part.isprintable() for part in (markdown + latex).splitlines())
    for picture in (tmp_path / "report").glob("*.png"):
        assert f"{{{picture.name}}}" in latex and f"({picture.name})" in markdown


def test_texts_are_texts_wherever_they_are_shown() -> None:
    table = Table(HOSTILE, ["run", HOSTILE], [[HOSTILE, "1"]], [HOSTILE])
    lines = table.markdown().splitlines()
    assert all(line.isprintable() for line in lines) and "<script>" not in table.markdown()
    assert "[p](http" not in table.markdown().replace("\\[p]", "")
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 3 and all(line.replace("\\|", "").count("|") == 3 for line in rows)
    assert "\\input" not in table.latex() and all(line.isprintable() for line in table.latex().splitlines())
    console = Console(width=400, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as shown:
        table.print(console)
    assert "[/red][bold]x[/bold]" in shown.get() and "\x1b" not in shown.get()


@pytest.mark.parametrize("name", ["../../esc", "..", "", ".", "a/b", "con\x00", "e" * 999, "é"])
def test_a_file_name_is_one(name: str, tmp_path: Path) -> None:
    made = tmp_path / f"{file_name(name)}.png"
    made.write_text("")
    assert made.parent.resolve() == made.resolve().parent == tmp_path.resolve()


@pytest.mark.parametrize("name", ["tables.md", "tables.tex", "tables.md.partial", "tables.tex.partial"])
def test_no_link_is_followed_where_tables_are_written(name: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text((run / "results.json").read_text())
    for target in (tmp_path / "mine", tmp_path / "folder"):
        (tmp_path / "mine").write_text("mine")
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / "x").write_text("mine")
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).symlink_to(target)
        write_tables(tmp_path)
        assert (tmp_path / "mine").read_text() == (tmp_path / "folder" / "x").read_text() == "mine"
        assert not (tmp_path / "tables.md").is_symlink()


@pytest.mark.parametrize(
    ("instead", "said"),
    [
        (lambda table: table.symlink_to("/etc/passwd"), "it is not the one that the results were made of"),
        (os.mkfifo, "there is no such file"),
        (lambda table: None, "there is no such file"),
    ],
    ids=["a link", "a pipe", "nothing"],
)
def test_a_table_that_is_another_is_told_though_one_run_needs_none(
    instead: Callable[[Path], object], said: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    report([copied], tmp_path / "before")
    assert "Warning: cannot" not in capsys.readouterr().out
    table = copied / load_records(copied)[0]["table"]
    table.unlink()
    instead(table)
    report([copied], tmp_path / "report")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "cannot read the table" in line]
    assert line.startswith(f"Warning: cannot read the table {table} ({said}") and "results.json is reported" in line
    with pytest.raises(UserError, match=said):
        report([copied, run], tmp_path / "both")
