"""Ctrl-C ends commands without a Trainer too, in a line."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.mark.long
@pytest.mark.parametrize("pause", [0.5, 1.5])  # most of its seconds are imports
@pytest.mark.parametrize("words", [["prepare", "--corpus=StandardLibrary"], ["report", "."]], ids=["prepare", "report"])
def test_ctrl_c_is_one_line(words: list[str], pause: float, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "lit_pi", *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    time.sleep(pause)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert (process.returncode, said) == (130, "lit-pi: stopped by Ctrl-C\n")
