"""A signal to all processes of a run, as schedulers and terminals send it, spares those that read data."""

import signal
from pathlib import Path

import pytest
from interrupted import group_stopped
from launched import start

from lit_pi.runs.status import read_status

pytestmark = pytest.mark.filterwarnings("ignore")

OTHERS = [(signal.SIGUSR1, 138), (signal.SIGINT, 130)]


@pytest.mark.parametrize(
    ("how", "code"),
    [(signal.SIGTERM, 143), *(pytest.param(*each, marks=pytest.mark.long) for each in OTHERS)],
    ids=["term", "usr1", "int"],
)
def test_it_saves_at_the_end_of_the_step(how: signal.Signals, code: int, tmp_path: Path, tiny: list[str]) -> None:
    run = tmp_path / "run"
    words = ["fit", *tiny, "--trainer.max_steps=9", "--trainer.limit_val_batches=0", "--data.num_workers=2"]
    assert start(group_stopped, [*words, f"--trainer.default_root_dir={run}"], how, folder=tmp_path).ended() == code
    assert (read_status(run)["state"], read_status(run)["step"]) == ("interrupted", 3)
    assert [path.name for path in run.glob("checkpoints/*.ckpt")] == ["step-000003.ckpt"]
