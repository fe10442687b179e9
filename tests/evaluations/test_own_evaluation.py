"""An evaluation and a strategy of a stranger's own, by import path: measured, published, reported and compared."""

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from contributing import blocks
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_pi.cli import LitPiCLI
from lit_pi.errors import UserError
from lit_pi.report import report

pytestmark = pytest.mark.filterwarnings("ignore")

STRATEGY = '''
from lit_pi.positions import PositionStrategy

class Halved(PositionStrategy):
    """Positions at half their distance."""

    prefix_consistent = True

    def inv_freq(self, rope, context_length):
        return rope.inv_freq() / 2
'''


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny: list[str], texts: Path) -> tuple[list[Path], Any]:
    """A run that trained with the evaluation, and tests of it under two strategies."""
    folder = tmp_path_factory.mktemp("own")
    files = blocks("An evaluation")
    (folder / "openings.py").write_text(files["openings.py"])
    (folder / "halved.py").write_text(STRATEGY)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        corpus = f"{{class_path: TextFiles, init_args: {{test: {texts / 'test'}}}}}"
        asked = f"{{class_path: openings.Openings, init_args: {{corpus: {corpus}, tokens: 8, every_n_steps: 2}}}}"
        words = [word for word in tiny if not word.startswith("--data.evaluations")]
        words += [f"--data.evaluations={{openings: {asked}}}", "--trainer.val_check_interval=1"]
        LitPiCLI(["fit", *words, f"--trainer.default_root_dir={folder / 'fit'}", "--trainer.max_steps=4"])
        trained = [word for word in words if not word.startswith(("--model.llm", "--model.position"))]
        trained += ["--model.llm=Pretrained", f"--model.llm.path={folder / 'fit'}"]
        for name, position in (("plain", "Extrapolate"), ("halved", "halved.Halved")):
            LitPiCLI(["test", *trained, f"--model.position={position}", f"--trainer.default_root_dir={folder / name}"])
        report([folder / "plain", folder / "halved"], folder / "report")
        yield [folder / "fit", folder / "plain", folder / "halved", folder / "report"], patch
    for name in ("openings", "halved"):
        sys.modules.pop(name, None)


def records(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "results.json").read_text())["records"]


def test_training_measures_it_when_due(runs: tuple[list[Path], Any]) -> None:
    fit = runs[0][0]
    assert [(record["evaluation"], record["step"]) for record in records(fit)] == [("openings", 2), ("openings", 4)]
    events = EventAccumulator(str(fit)).Reload()
    scalars = [(event.step, event.value) for event in events.Scalars("openings/opening")]
    assert scalars == [(record["step"], pytest.approx(record["loss"], rel=1e-6)) for record in records(fit)]
    assert "openings/openings" in events.Tags()["images"]
    assert (fit / "figures" / "openings-openings.png").read_bytes().startswith(b"\x89PNG")
    assert "openings: loss of openings" in (fit / "tables.md").read_text()


def test_a_report_shows_and_pairs_it(runs: tuple[list[Path], Any]) -> None:
    _, plain, halved, output = runs[0]
    text = (output / "report.md").read_text()
    assert "plain: Extrapolate" in text and "halved: Halved" in text and "(openings-openings.png)" in text
    assert (output / "openings-openings.svg").exists()
    losses = [pyarrow.parquet.read_table(run / records(run)[0]["table"])["nll"].to_pylist() for run in (plain, halved)]
    changes = [two - one for one, two in zip(*losses, strict=True)]
    mean = sum(changes) / 5
    half = 2.7764451051977987 * math.sqrt(sum((change - mean) ** 2 for change in changes) / 4 / 5)  # Student's, 4
    star = r"\*" if abs(mean) > half else ""
    (row,) = (line for line in text.splitlines() if line.startswith("| halved | loss"))
    expected = rf"{mean:+.4g}{star} ({mean - half:.4g} to {mean + half:.4g})".replace("\\", "")
    squares = [(change - mean) ** 2 for change in changes]
    expected += f" [5.0, {100 * max(squares) / sum(squares):.0f} %]"
    assert row == f"| halved | loss (nats a token) | 5 | {expected} |"
    assert re.search(r"difference from plain on the same items", text)


def test_its_results_say_where_its_class_is_missing(runs: tuple[list[Path], Any], tmp_path: Path) -> None:
    folders, _ = runs
    with pytest.MonkeyPatch.context() as away:
        away.setattr(sys, "path", [path for path in sys.path if path != str(folders[0].parent)])
        away.delitem(sys.modules, "openings")
        with pytest.raises(UserError, match=r"openings\.Openings, which cannot be imported .*PYTHONPATH"):
            report([folders[1]], tmp_path)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("def metric(self):\n        return {}", "its metric is dict, not a torchmetrics.Metric"),
        ("def batches(self, name, tokenizer, world_size):\n        return [1]", "its batches are list, not Scoring"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_first_batch(
    method: str, reason: str, runs: tuple[list[Path], Any], tmp_path: Path, tiny: list[str], texts: Path
) -> None:
    name = f"broken_{method.split('(')[0].split()[-1]}"
    source = f"from openings import Openings\n\nclass Broken(Openings):\n    {method}\n"
    (runs[0][0].parent / f"{name}.py").write_text(source)
    corpus = f"{{class_path: TextFiles, init_args: {{test: {texts / 'test'}}}}}"
    asked = f"{{broken: {{class_path: {name}.Broken, init_args: {{corpus: {corpus}}}}}}}"
    words = [word for word in tiny if not word.startswith("--data.evaluations")]
    with pytest.raises(UserError, match=f"broken .* cannot be measured: {reason}"):
        LitPiCLI(["test", *words, f"--data.evaluations={asked}", f"--trainer.default_root_dir={tmp_path}"])
    assert not (tmp_path / "results.json").exists()
