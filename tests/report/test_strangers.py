"""Reports made of results that a stranger wrote: nothing outside of the report is read, written or run."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lit_pi.cli import LitPiCLI
from lit_pi.errors import UserError
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
    "another curve": (lambda record: record.update(curve=[1, 2]), "are not what Perplexity writes"),
    "a step in words": (lambda record: record.update(step="a"), "record 0 has no `step`"),
    "no strategy": (lambda record: record["protocol"].update(position=3), "does not say its position strategy"),
    "a file elsewhere": (lambda record: record.update(table="/etc/passwd"), "which lies outside of the run"),
    "a file above": (lambda record: record.update(table="../x.parquet"), "which lies outside of the run"),
    "below zero": (lambda record: record["curve"][0].update(perplexity=-3), "has a perplexity of -3"),
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
