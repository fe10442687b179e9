"""The progress bar shows what training has come to."""

import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_pi.cli import LitPiCLI

pytestmark = pytest.mark.filterwarnings("ignore")


def test_it_shows_the_loss_and_tokens_a_second(
    tmp_path: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    LitPiCLI([
        "fit", *tiny, "--trainer.enable_progress_bar=true", "--trainer.max_steps=5", "--trainer.limit_val_batches=0",
        "--trainer.log_every_n_steps=1", f"--trainer.default_root_dir={tmp_path}",
    ])  # fmt: skip
    said = capsys.readouterr()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    losses = [f"{event.value:.3f}" for event in events.Scalars("train/loss")]
    shown = re.findall(r"loss=(\d+\.\d+)", said.out + said.err)
    assert len(losses) == 5
    assert list(dict.fromkeys(shown)) == list(dict.fromkeys(losses))
    rates = [float(rate) for rate in re.findall(r"tokens/s=([\d.e+]+)", said.out + said.err)]
    assert rates and max(rates) > 0
