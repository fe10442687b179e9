"""A comparison from its YAML to its report: controlled, never run twice, safe to kill."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_pi.evaluations.records import load_records

pytestmark = pytest.mark.long

ARMS = {
    "extrapolate": {"position": "Extrapolate", "steps": [0, 4]},
    "interpolate": {"position": {"class_path": "Interpolate", "init_args": {"scale": 2}}, "steps": [0, 2, 4]},
}


def words(folder: Path, tiny: list[str], arms: dict[str, Any]) -> list[str]:
    """The command line of a comparison whose model is pre-trained first."""
    (folder / "pretrain.yaml").write_text(yaml.safe_dump(options([*tiny, "--trainer.max_steps=3"])))
    common = options([*tiny, "--data.context_length=128"])
    common["model"]["llm"] = {"class_path": "Pretrained", "init_args": {"path": "made"}}
    (folder / "compare.yaml").write_text(yaml.safe_dump(common | {"arms": arms, "pretrain": "pretrain.yaml"}))
    return ["compare", f"--config={folder / 'compare.yaml'}", f"--output={folder / 'out'}"]


def options(given: list[str]) -> dict[str, Any]:
    """Options of a command line as a configuration."""
    found: dict[str, Any] = {}
    for word in given:
        name, _, value = word.removeprefix("--").partition("=")
        *groups, last = name.split(".")
        place = found
        for group in groups:
            inner = place.get(group, {})
            place[group] = place = inner if isinstance(inner, dict) else {"class_path": inner, "init_args": {}}
        place.setdefault("init_args", {})[last] = yaml.safe_load(value) if "class_path" in place else None
        if "class_path" not in place:
            del place["init_args"]
            place[last] = yaml.safe_load(value)
    return found


def run(*given: str) -> str:
    done = subprocess.run([sys.executable, "-m", "lit_pi", *given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def by_name(folder: Path) -> dict[str, Path]:
    return {path.name.rpartition("-")[0]: path for path in (folder / "out" / "cells").iterdir()}


def times(folder: Path) -> dict[str, int]:
    return {name: (path / "log.txt").stat().st_mtime_ns for name, path in by_name(folder).items()}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("compared")
    return folder, run(*words(folder, tiny, ARMS))


def test_cells_that_differ_in_strategy_alone_are_equal_otherwise(compared: tuple[Path, str]) -> None:
    folder, said = compared
    assert "differ in more than is compared" not in said
    cells = by_name(folder)
    records = [load_records(cells[f"{arm}-at-4-seed-0"])[0] for arm in ARMS]
    for field in ("initial_weights", "sequences", "tokens"):
        assert len({record["history"][-1][field] for record in records}) == 1, field
    measured = [path for path in cells.values() if (path / "results.json").exists()]
    assert len({load_records(path)[0]["windows"] for path in measured}) == 1
    assert [each["position"]["class"] for each in records[1]["history"]] == ["Extrapolate", "Interpolate"]
    assert (folder / "out" / "report" / "report.md").is_file()


def test_what_was_run_is_not_run_again(compared: tuple[Path, str], tiny: list[str]) -> None:
    folder, _ = compared
    before = times(folder)
    run(*words(folder, tiny, ARMS))
    assert times(folder) == before


def test_a_cell_can_be_repeated_alone(compared: tuple[Path, str], tmp_path: Path) -> None:
    cell = by_name(compared[0])["interpolate-at-4-seed-0"]
    run("test", f"--config={cell / 'cell.yaml'}", f"--trainer.default_root_dir={tmp_path}")
    assert load_records(tmp_path)[0]["curve"] == load_records(cell)[0]["curve"]


def test_what_differs_is_named(compared: tuple[Path, str], tiny: list[str]) -> None:
    folder, _ = compared
    other = {"odd": {"position": "NoPositions", "steps": [4], "options": {"data.packing": "single"}}}
    said = run(*words(folder, tiny, ARMS | other))
    assert "cells differ in more than is compared: the training sequences or their order" in " ".join(said.split())


def test_a_comparison_that_is_killed_comes_to_the_same(
    compared: tuple[Path, str], tmp_path: Path, tiny: list[str]
) -> None:
    given = words(tmp_path, tiny, ARMS)
    for seconds in (12, 25):
        process = subprocess.Popen([sys.executable, "-m", "lit_pi", *given], stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    run(*given)
    for name, path in by_name(compared[0]).items():
        if (path / "results.json").exists() and name in by_name(tmp_path):
            assert load_records(by_name(tmp_path)[name])[0]["curve"] == load_records(path)[0]["curve"], name
