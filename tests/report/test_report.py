"""Reports of runs as a user gets them: every kind of result, compared with the first run, without network."""

import json
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from scipy.stats import t as student
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_pi.cli import LitPiCLI
from lit_pi.errors import UserError
from lit_pi.evaluations.records import SCHEMA_VERSION, load_records
from lit_pi.files import write_sealed
from lit_pi.report import report

pytestmark = pytest.mark.filterwarnings("ignore")

RECORDS: dict[str, list[dict[str, Any]]] = {
    "reports": [{"report": "boats sail " * n, "summary": "boats"} for n in (3, 5)],
    "boolq": [{"passage": "Ice floats.", "question": f"is it {n}", "answer": n % 2 == 0} for n in range(6)],
    "piqa": [{"goal": f"Open {n}", "sol1": "Push.", "sol2": f"Turn {n}.", "label": n % 2} for n in range(6)],
    "race": [
        {"article": "Ann has cats.", "question": f"{n}?", "options": ["a", "b", "c", "d"], "answer": "B"}
        for n in range(4)
    ],
    "winogrande": [
        {"sentence": f"Ann left Bo as _ was {n}.", "option1": "Ann", "option2": "Bo", "answer": "1"} for n in range(4)
    ],
}


def evaluations(folder: Path, texts: Path, stride: int) -> dict[str, Any]:
    corpus = {"class_path": "TextFiles", "init_args": {"test": str(texts / "test")}}
    tasks = {"boolq": "BoolQ", "piqa": "PIQA", "race": "RACE", "winogrande": "WinoGrande"}
    reports = {"test": str(folder / "reports.jsonl"), "learn": "summary"}
    given: dict[str, tuple[str, dict[str, Any]]] = {
        "books": ("Perplexity", {"corpus": corpus, "context_lengths": [32, 64], "stride": stride, "batch_size": 8}),
        "keys": ("PasskeyRetrieval", {"context_lengths": [350, 400], "mode": "grid", "depths": 2, "trials": 2}),
        "far_keys": ("PasskeyRetrieval", {"context_lengths": [350], "mode": "paper", "distances": 2, "trials": 2}),
        "summaries": ("Summarization", {
            "corpus": {"class_path": "GovReportCorpus", "init_args": reports}, "context_length": 300, "seeds": [0],
            "max_new_tokens": 4,
        }),
        "decode": ("DecodeConsistency", {"corpus": corpus, "context_length": 90, "steps": 4, "max_documents": 2}),
        **{
            task: ("MultipleChoice", {"task": {"class_path": kind, "init_args": {"files": f"{folder / task}.jsonl"}}})
            for task, kind in tasks.items()
        },
    }  # fmt: skip
    return {name: {"class_path": kind, "init_args": options} for name, (kind, options) in given.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, texts: Path, tiny: list[str]) -> list[Path]:
    """Runs of two strategies with every kind of evaluation, and one of other windows; sockets refuse."""
    folder = tmp_path_factory.mktemp("runs")
    for name, records in RECORDS.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("opened a socket")

    words = [word for word in tiny if not word.startswith(("--data.evaluations", "--model.position"))]
    # Weights so large that attention, and with it the strategy, makes a difference.
    words = [
        word.replace("max_position_embeddings", "initializer_range: 0.3, max_position_embeddings") for word in words
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        for name, position, stride in (("base", "PRoPE", 16), ("longer", "Extrapolate", 16), ("other", "PRoPE", 8)):
            given = evaluations(folder, texts, stride)
            given = given if name != "other" else {"books": given["books"]}
            LitPiCLI([
                "test", *words, f"--model.position={position}", f"--data.evaluations={json.dumps(given)}",
                f"--trainer.default_root_dir={folder / name}",
            ])  # fmt: skip
    return [folder / name for name in ("base", "longer", "other")]


def tables(markdown: str) -> dict[str, list[list[str]]]:
    """Header and rows of every table, by title."""
    found = {}
    for section in re.split(r"^## ", markdown, flags=re.M)[1:]:
        title, *lines = section.splitlines()
        cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]
        found[title] = [cells[0], *cells[2:]]
    return found


def titled(found: dict[str, list[list[str]]], start: str) -> list[list[str]]:
    (table,) = (table for title, table in found.items() if title.startswith(start))
    return table


def records(run: Path) -> dict[str, dict[str, Any]]:
    return {record["evaluation"]: record for record in json.loads((run / "results.json").read_text())["records"]}


@pytest.fixture(scope="module")
def reported(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("report")
    report(runs[:2], output)
    return output


def test_a_report_holds_what_the_runs_found(runs: list[Path], reported: Path) -> None:
    found = tables((reported / "report.md").read_text())
    base, longer = (records(run) for run in runs[:2])
    header, *rows = titled(found, "books: perplexity by context length")
    assert header == ["run", "32", "64"]
    for row, own in zip(rows, (base, longer), strict=True):
        points = own["books"]["curve"]
        assert row[1:] == [
            f"{p['perplexity']:.2f} ({p['low']:.2f} to {p['high']:.2f}) "
            f"[{p['effective_documents']:.1f}, {100 * p['largest_share']:.0f} %]"
            for p in points
        ]
    assert rows[1][0] == "longer: Extrapolate" and rows[0][0].startswith("base: PRoPE (")
    definitions = titled(found, "books: every definition")
    (bits,) = (row[2:] for row in definitions if row[:2] == ["longer: Extrapolate", "bits per byte"])
    assert bits == [f"{point['value']:.4f}" for point in longer["books"]["definitions"]["bits_per_byte"]]
    header, *rows = titled(found, "keys: passkeys found,")
    assert header[-5:-2] == ["k_max@20", "k_max@50", "k_max@90"] and [row[1:3] for row in rows] == [
        ["350", "4"], ["400", "4"]
    ] * 2  # fmt: skip
    header, *rows = titled(found, "questions answered (%)")
    assert header[2:] == ["boolq", "piqa", "race", "winogrande"]
    (piqa,) = (row[3] for row in rows if row[:2] == ["longer: Extrapolate", "per character"])
    (expected,) = (each for each in longer["piqa"]["accuracies"] if each["normalisation"] == "characters")
    assert piqa.startswith(f"{100 * expected['accuracy']:.1f} (") and piqa.endswith("†")
    (_, *rows) = titled(found, "summaries: summaries")
    assert [row[1] for row in rows] == ["2", "2"]
    (_, *rows) = titled(found, "decode: decoding with a cache")
    assert [row[-1] for row in rows] == ["consistent"] * 2
    for name in ("books-perplexity", "books-loss_by_position-longer", "keys-passkey", "far_keys-passkey"):
        assert (reported / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (
            "<svg" in (reported / f"{name}.svg").read_text() and f"({name}.png)" in (reported / "report.md").read_text()
        )


def test_differences_are_those_of_the_same_documents_prompts_and_questions(runs: list[Path], reported: Path) -> None:
    found = tables((reported / "report.md").read_text())
    rows = [pyarrow.parquet.read_table(run / "scores" / "books-test.parquet").to_pylist() for run in runs[:2]]
    pairs = [(one, two) for one, two in zip(*rows, strict=True) if one["context_length"] == 64]
    tokens = np.array([one["tokens"] for one, _ in pairs])
    nats = np.array([two["nll"] - one["nll"] for one, two in pairs])
    difference = nats.sum() / tokens.sum()
    squares = np.array([np.delete(nats, d).sum() / np.delete(tokens, d).sum() - difference for d in range(5)]) ** 2
    effective, share = tokens.sum() ** 2 / np.square(tokens).sum(), squares.max() / squares.sum()
    half = student.ppf(0.975, effective - 1) * np.sqrt(4 / 5 * squares.sum())
    table = titled(found, "books: loss less that of base")
    assert table[0] == ["run", "definition", "32", "64"] and table[1][:2] == ["longer", "perplexity"]
    for cell in [cell for row in table[1:] for cell in row[2:]]:
        value, low, high, *_ = (float(number) for number in re.findall(r"[-+]?\d+\.\d+", cell))
        marked = "*" in cell or "?" in cell
        assert low <= value <= high and (low == 0 or high == 0 or marked == (low > 0 or high < 0))
    assert "*" in "".join(cell for row in table for cell in row)
    star = "*" if abs(difference) > half else ""
    behind = f"({difference - half:.4f} to {difference + half:.4f}) [{effective:.1f}, {100 * share:.0f} %]"
    assert table[1][3] == f"{difference:+.4f}{star} {behind}"
    answered = [
        pyarrow.parquet.read_table(run / "questions" / "piqa-test.parquet")["correct_characters"].to_pylist()
        for run in runs[:2]
    ]
    only = [[one > two for one, two in zip(*order, strict=True)] for order in (answered, answered[::-1])]
    (row,) = (row for row in titled(found, "questions answered here") if row[1:3] == ["piqa", "per character"])
    assert row[4:6] == [str(sum(only[0])), str(sum(only[1]))]
    asked = [pyarrow.parquet.read_table(run / "passkeys" / "keys-test.parquet").to_pylist() for run in runs[:2]]
    assert [len(rows) for rows in asked] == [8, 8] and len(titled(found, "keys: passkeys found here")) == 3
    for run, rows in zip(runs, asked, strict=False):
        cells = {(cell["context_length"], cell["cell"]): cell["correct"] for cell in records(run)["keys"]["cells"]}
        for key, correct in cells.items():
            assert correct == sum(row["correct"] for row in rows if (row["context_length"], row["cell"]) == key)


def test_latex_has_the_same_cells_and_no_sign_that_latex_reads_as_a_command(reported: Path) -> None:
    latex, found = (reported / "report.tex").read_text(), tables((reported / "report.md").read_text())
    bodies = re.findall(r"\\begin\{tabular\}\{([lr]+)\}\n  \\toprule\n(.*?)  \\bottomrule", latex, flags=re.S)
    assert len(bodies) == len(found)
    for (columns, body), rows in zip(bodies, found.values(), strict=True):
        lines = [line for line in body.splitlines() if line != "  \\midrule"]
        assert len(lines) == len(rows)
        for line in lines:
            assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1 and line.endswith(" \\\\")
            assert not re.search(r"(?<!\\)[%_#†<]", line)
    assert "k\\_max@20" in latex and "\\textless{}bos\\textgreater{} before every window" in latex
    assert latex.count("\\includegraphics") == len(list(reported.glob("*.png")))


def test_a_run_has_its_tables_in_its_directory_and_in_tensorboard(runs: list[Path]) -> None:
    written = (runs[1] / "tables.md").read_text()
    found = tables(written)
    assert "books: perplexity by context length, longer: Extrapolate" in found
    header, *rows = titled(found, "books: perplexity by context length")
    carried = ["documents in effect", "largest share"]
    assert header == ["context length", "perplexity", "95 % interval over documents", *carried, "tokens scored"]
    assert [row[0] for row in rows] == ["32", "64"]
    assert "less that" not in written and "\\begin{tabular}" in (runs[1] / "tables.tex").read_text()
    events = EventAccumulator(str(runs[1])).Reload()
    (text,) = {event.tensor_proto.string_val[0].decode() for event in events.Tensors("results/text_summary")[-1:]}
    assert text == written
    for key, points in records(runs[1])["books"]["definitions"].items():
        name = "perplexity" if key == "token_weighted" else key
        for point in points:
            (scalar,) = events.Scalars(f"books/{name}/{point['context_length']}")
            assert scalar.value == pytest.approx(point["value"], rel=1e-6)


def test_what_cannot_be_compared_is_told_beside_what_can(runs: list[Path], tmp_path: Path) -> None:
    report([runs[0], runs[2]], tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert len(titled(tables(text), "books: perplexity by context length")) == 3
    assert re.search(r"not compared: .*base and .*other measured different windows as books", text)


def test_runs_of_one_name_stay_apart(runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "other").symlink_to(runs[2])
    copy = tmp_path / "copy" / "other"
    copy.parent.mkdir()
    copy.mkdir()
    for part in ("results.json", "scores"):
        (copy / part).symlink_to(runs[2] / part)
    report([runs[2], copy], tmp_path / "report")
    _, *rows = titled(tables((tmp_path / "report" / "report.md").read_text()), "books: perplexity by context length")
    assert [row[0].split(": PRoPE")[0] for row in rows] == [str(runs[2]), str(copy)]


@pytest.mark.parametrize("kind", ["scores", "passkeys", "questions"])
def test_a_table_that_is_damaged_is_never_part_of_a_comparison(kind: str, runs: list[Path], tmp_path: Path) -> None:
    copy = shutil.copytree(runs[1], tmp_path / "copy")
    tables = {record["table"] for record in load_records(copy) if str(record["table"]).startswith(kind)}
    for table in tables:
        content = bytearray((copy / table).read_bytes())
        content[len(content) // 3] ^= 1
        (copy / table).write_bytes(content)
    with pytest.raises(UserError, match=rf"cannot read the table {copy}/{kind}.*not the one .*: test that run again"):
        report([runs[0], copy], tmp_path / "report")


def test_runs_without_results_are_named(tmp_path: Path) -> None:
    write_sealed(tmp_path / "results.json", {"schema_version": SCHEMA_VERSION, "records": []})
    with pytest.raises(UserError, match="are empty: test it"):
        report([tmp_path], tmp_path / "report")
